"""The official SWE-bench harness, run as it is in a process of its own, in images that are here.

    python -m tests.support.official_harness -d rows.jsonl -p predictions.jsonl -id run --namespace troop …

Of 4.1 one thing is stood in for: while putting its specifications together it fetches requirement files of some
repositories from GitHub, to build environments that are built already. Its verdicts do not depend on them. Release 5
wants rows that say how they are tested: old ones are given 4.1's script and the name of their parser.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.records import Json
from harness.swebench import official
from harness.swebench.names import image_name
from tasks.swebench import load_rows

RUN_ID = "official"


@dataclass(frozen=True)
class Official:
    """What the official harness said of one set of predictions: its summary, its report of each instance that has one,
    and where its files are. `seconds` and `memory` (peak, MB) of its process."""

    summary: Json
    reports: Mapping[str, Json]
    folder: Path
    seconds: float
    memory: float

    def outcome(self, instance_id: str) -> str:
        """resolved, unresolved, empty or error."""
        for kind, name in (("resolved", "resolved"), ("unresolved", "unresolved"), ("empty_patch", "empty")):
            if instance_id in self.summary[f"{kind}_ids"]:
                return name
        return "error" if instance_id in self.summary["error_ids"] else "missing"

    def log_end(self, instance_id: str) -> str:
        """The end of the harness's own log on an instance: why it has no report."""
        log = self.folder / instance_id / "run_instance.log"
        return log.read_text("utf-8", "replace")[-2000:] if log.exists() else "no log"


def run_official(
    rows: Path,
    predictions: Mapping[str, str],
    folder: Path,
    *,
    namespace: str,
    workers: int = 1,
    timeout: int = 1800,
    model: str = "model",
    niceness: int = 0,
    rules: official.Rules = "5",
) -> Official:
    """Grade `predictions` (patch by instance) in images of `namespace`; files go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = [
        "--namespace",
        namespace,
        "--cache_level",
        "instance",
    ]  # else it removes images that others build meanwhile
    if rules == "5":
        rows, place = _todays(rows, set(predictions), folder / "rows.jsonl", namespace), []
    file = folder / "predictions.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for name, patch in predictions.items():
            out.write(json.dumps({"instance_id": name, "model_name_or_path": model, "model_patch": patch}) + "\n")
    command = [
        *(sys.executable, "-m", "tests.support.official_harness"),
        *("--dataset_name", str(rows.absolute()), "--predictions_path", str(file.absolute())),
        *("--instance_ids", *predictions, "--run_id", RUN_ID, *place),
        *("--max_workers", str(workers), "--timeout", str(timeout)),
    ]
    root = Path(__file__).parent.parent.parent
    release = official.RELEASES[rules].root().parent
    environment = {**os.environ, "PYTHONPATH": f"{root}:{release}"}
    if niceness:
        command = ["nice", "-n", str(niceness), *command]
    began = time.monotonic()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    try:
        summary = json.loads((folder / f"{model}.{RUN_ID}.json").read_text("utf-8"))
    except OSError as error:
        raise RuntimeError(f"the official harness made no report: {(folder / 'said').read_text()[-4000:]}") from error
    logs = folder / "logs" / "run_evaluation" / RUN_ID / model
    reports = {path.parent.name: json.loads(path.read_text("utf-8")) for path in logs.glob("*/report.json")}
    return Official(
        summary, {name: told[name] for name, told in reports.items()}, logs, seconds, usage.ru_maxrss / 1024
    )


def _todays(rows: Path, ids: set[str], out: Path, namespace: str) -> Path:
    """The rows of these instances in the shape that release 5 reads."""
    with out.open("w", encoding="utf-8") as file:
        for row in load_rows("", rows):
            if row.instance_id not in ids:
                continue
            fields: Json = {name: value for name, value in asdict(row).items() if isinstance(value, str)}
            fields |= {"eval_script": official.eval_script(row, rules="4.1"), **official.parsing_of(row)} | {
                "image": row.image or image_name(row.instance_id, namespace)
            }
            fields |= {"FAIL_TO_PASS": row.fail_to_pass, "PASS_TO_PASS": row.pass_to_pass}
            file.write(json.dumps(fields) + "\n")
    return out


def main(arguments: Sequence[str]) -> None:
    """The official command line."""
    import runpy

    with contextlib.suppress(ModuleNotFoundError):  # 4.1 alone has it
        import swebench.harness.test_spec.python as specifications

        def nothing(*_: Any) -> str:
            return ""

        specifications.get_requirements_by_commit = nothing
        specifications.get_environment_yml_by_commit = nothing
    sys.argv = ["swebench.harness.run_evaluation", *arguments]
    runpy.run_module("swebench.harness.run_evaluation", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
