"""What a grading came to: the official summary of each set of predictions, and the files of each prediction."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cache import read_json, write_json
from harness.records import Json
from harness.swebench import official
from harness.swebench.grading import OFFICIAL_ERRORS, GradedPatch
from harness.swebench.memo import Memo
from harness.swebench.official import Rules
from harness.swebench.predictions import Prediction, PredictionSet
from tasks.swebench import Row

REPORT_SCHEMA = 1
_VERDICT = "verdict.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One prediction's end: its verdict, or why the world kept it from having one. `outcomes`: of each time that it was
    graded, where that was more than once."""

    prediction: Prediction
    graded: GradedPatch | None
    failure: str = ""
    outcomes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        return self.graded.outcome if self.graded is not None else "failed"

    @property
    def reason(self) -> str:
        return self.graded.reason if self.graded is not None else self.failure


def official_summary(instances: Sequence[str], results: Mapping[str, Result]) -> Json:
    """The official harness's report on one set of predictions, by its own fields (schema_version 2).

    `instances`: all that were asked for. As there: errors are predictions without a report, so patches that do not
    apply and tests that took too long are among them; a patch that is empty is neither completed nor an error."""
    kinds: dict[str, list[str]] = {name: [] for name in ("resolved", "unresolved", "empty_patch", "error")}
    for name, result in results.items():
        kinds[_official_kind(result)].append(name)
    ids = {**kinds, "completed": kinds["resolved"] + kinds["unresolved"], "submitted": list(results)}
    counts = {f"{kind}_instances": len(names) for kind, names in ids.items()}
    ids["incomplete"] = list(set(instances) - set(results))
    listed = {f"{kind}_ids": sorted(names) for kind, names in ids.items()}
    return {"total_instances": len(instances), **counts, **listed, "schema_version": 2}


def _official_kind(result: Result) -> str:
    if result.graded is None or result.graded.outcome in OFFICIAL_ERRORS:
        return "error"
    if result.graded.outcome == "empty":
        return "empty_patch"
    return "resolved" if result.graded.resolved else "unresolved"


def whole_report(
    suite: str,
    instances: Sequence[str],
    sets: Sequence[PredictionSet],
    results: Mapping[tuple[str, str], Result],
    *,
    retries: int,
    seconds: float,
    rules: tuple[Rules, ...],
) -> Json:
    """report.json of a grading. `results` by (set's name, instance)."""
    return {
        "schema": REPORT_SCHEMA,
        "suite": suite,
        "swebench": official.versions(rules),
        "instances": len(instances),
        "sets": [_set_report(each, results) for each in sets],
        "predictions": [_result_report(name, result) for (name, _), result in results.items()],
        "infrastructure": {"retries": retries, "failures": sum(r.graded is None for r in results.values())},
        "seconds": round(seconds, 1),
    }


def _set_report(each: PredictionSet, results: Mapping[tuple[str, str], Result]) -> Json:
    own = [results[each.name, name] for name in each.predictions if (each.name, name) in results]
    outcomes = Counter(result.outcome for result in own)
    return {
        **{name: getattr(each, name) for name in ("name", "model", "rank", "source")},
        "submitted": len(own),
        "resolved": outcomes["resolved"],
        **_range(own),
        "outcomes": dict(sorted(outcomes.items())),
    }


def _range(own: Sequence[Result]) -> Json:
    """How many are resolved at least and at most, by verdicts that differ between repetitions."""
    times = [result.outcomes or (result.outcome,) for result in own]
    if all(len(each) == 1 for each in times):
        return {}
    least, most = (sum(how(outcome == "resolved" for outcome in each) for each in times) for how in (all, any))
    flaky = [each.prediction.instance_id for each in own if len(set(each.outcomes)) > 1]
    return {"resolved_range": [least, most], "flaky": len(flaky), "flaky_ids": flaky}


def untrusted(report: Json) -> dict[str, str]:
    """By instance: why its verdicts cannot be trusted here. `report`: of a grading of gold and noop."""
    found: dict[str, str] = {}
    for row in report["predictions"]:
        outcomes = set(row.get("outcomes", [row["outcome"]]))
        if len(outcomes) > 1:
            found[row["instance_id"]] = f"{row['set']} is {' or '.join(sorted(outcomes))}, by chance"
        elif row["set"] == "gold" and outcomes != {"resolved"}:
            found[row["instance_id"]] = f"the right patch is not resolved: {row['reason'] or row['outcome']}"
        elif row["set"] == "noop" and outcomes == {"resolved"}:
            found[row["instance_id"]] = "a patch that changes nothing is resolved"
    return found


def _result_report(name: str, result: Result) -> Json:
    row: Json = {
        "set": name,
        "instance_id": result.prediction.instance_id,
        "outcome": result.outcome,
        "resolved": result.outcome == "resolved",
        "reason": result.reason,
    }
    if result.outcomes:
        row["outcomes"] = list(result.outcomes)
    if (graded := result.graded) is not None:
        if graded.former:
            row |= {"rules_4.1": graded.former, "differs": graded.former != graded.outcome}
            row["why_4.1"] = graded.former_reason
        shown = ("applied", "installed", "image", "notes", "seconds", "wall", "remembered")
        row |= {name: getattr(graded, name) for name in shown} | {"notes": list(graded.notes)}
    return row


def write_files(folder: Path, row: Row, result: Result, memo: Memo, *, name: str, rules: Rules) -> None:
    """Blocking: patch.diff, eval.sh, test_output.txt and report.json as the official harness has them, and
    verdict.json, which comes last. `name`: the set's. What is there already for the same verdict stays."""
    graded = result.graded
    verdict = {**_result_report(name, result), "key": graded.key if graded else ""}
    if verdict["key"] and (read_json(folder / _VERDICT) or {}).get("key") == verdict["key"]:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "patch.diff").write_bytes(result.prediction.patch.encode("utf-8", "surrogatepass"))
    if graded is not None and graded.key:
        script = official.eval_script(row, install=graded.installed, rules=rules)
        (folder / "eval.sh").write_bytes(script.encode("utf-8", "surrogatepass"))
        if graded.outcome != "refused":
            memo.copy_log(graded.key, folder / "test_output.txt")
        if graded.report is not None:
            (folder / "report.json").write_text(json.dumps({row.instance_id: graded.report}, indent=4), "utf-8")
    write_json(folder / _VERDICT, verdict)
