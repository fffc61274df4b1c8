"""`troop solve` on a row of `tests.support.dialects`, and whether it came to what the row wants."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.dialect_model import ISSUE, Json
from tests.support.dialect_wires import Memory
from tests.support.dialects import Dialect

KEYS = {"DIALECT_API_KEY": "key-of-the-test", "ANTHROPIC_API_KEY": "key-of-the-test"}
"""The environment that a run needs."""

_RIGHT = re.compile(r"^\+    for value in (values|list\(values\)):$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `text`: all that it said; `report`: as in report.json, None where no run came about."""

    exit_code: int
    text: str
    seconds: float
    report: Json | None
    patch: str | None

    @property
    def solved(self) -> bool:
        """Whether the selected patch mends the bug and nothing else of the code."""
        patch = self.patch or ""
        return self.exit_code == 0 and bool(_RIGHT.search(patch)) and "-def largest" not in patch

    @property
    def statuses(self) -> list[str]:
        """How the attempts ended."""
        return [str(row["status"]) for row in (self.report or {}).get("attempts") or []]

    @property
    def end(self) -> str:
        """In a few words: solved, or exit code and statuses."""
        return "solved" if self.solved else " ".join([f"exit {self.exit_code}", *sorted(set(self.statuses))])


def write_alias(row: Dialect, base: str, place: Path) -> Mapping[str, str]:
    """troop.toml in `place` with the alias "m" for the row at that base URL; the environment that goes with it."""
    alias: dict[str, Any] = {"base_url": base, "usd_per_mtok_input": 1.0, "usd_per_mtok_output": 2.0, **row.alias}
    if row.endpoint == "messages":
        alias["model"] = f"anthropic/{row.model}"
    else:
        alias |= {"name": row.model, "key_env": "DIALECT_API_KEY"}
    lines = [f"{key} = {_toml(value)}\n" for key, value in alias.items()]
    (place / "troop.toml").write_text("".join(["[models.m]\n", *lines]), encoding="utf-8")
    return {**KEYS, "ANTHROPIC_BASE_URL": base} if row.endpoint == "messages" else KEYS


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def words(row: Dialect, repository: Path, attempts: int) -> list[str]:
    """The command line of the run, begun where troop.toml is."""
    limits = ["--max-turns", str(row.turns), "--timeout", str(int(row.wanted.seconds) + 10)]
    sandbox = ["--sandbox", "bubblewrap", "--out", "runs", "--json"]
    return ["solve", str(repository), "--issue-text", ISSUE, "--model", "m", "-n", str(attempts), *limits, *sandbox]


def outcome(exit_code: int, out: str, err: str, seconds: float) -> Outcome:
    """What a run came to, from what it wrote."""
    try:
        told = json.loads(out)
    except ValueError:
        told = {}
    report = told if isinstance(told, dict) and "attempts" in told else None
    place = Path(report["directory"]) / "selected.patch" if report else None
    patch = place.read_text() if place is not None and place.exists() else None
    return Outcome(exit_code, f"{out}\n{err}", seconds, report, patch)


def complaints(row: Dialect, ended: Outcome, memory: Memory) -> list[str]:
    """In what the run fell short of what the row wants; empty where it did not."""
    wanted, found = row.wanted, []
    if "crashed" in ended.statuses or "Traceback (most recent call last)" in ended.text:
        found.append("an attempt crashed")
    if ended.seconds > wanted.seconds:
        found.append(f"it took {ended.seconds:.0f} s of {wanted.seconds:.0f}")
    told = bool(wanted.or_says) and ended.exit_code == 4 and bool(re.search(wanted.or_says, ended.text))
    if wanted.solved and not told:
        if not ended.solved:
            found.append(f"it was not solved: {ended.end}")
        if memory.mind.bad:
            found.append(f"the model was ill treated: {memory.mind.bad[0]}")
    elif not wanted.solved:
        if ended.exit_code not in wanted.exit_codes:
            found.append(f"exit code {ended.exit_code}")
        if not re.search(wanted.says, ended.text, re.IGNORECASE):
            found.append(f"no sentence says /{wanted.says}/")
    found += [said for check in wanted.checks if (said := check(memory, ended.report)) and not told]
    return found
