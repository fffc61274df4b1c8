"""Running probes in a sandbox, and how their steps behaved, in a form that two runs of the same code agree on."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.choosing.probes import Probe
from harness.choosing.statement import Statement
from harness.records import Exec
from harness.sandbox.base import Sandbox

STEP_SECONDS = 10.0
"""Of processor time, so that a busy machine changes nothing."""
PROBE_SECONDS = 120.0
REPORT_BYTES = 2_000_000
KEPT_CHARS = 2000
"""Of each text of a step."""

_DRIVER = Path(__file__).parents[1] / "inside" / "probe_session.py"
_PLACE = "/tmp/troop-probes"
_ENVIRONMENT = "MPLBACKEND=Agg PYTHONHASHSEED=0 PYTHONWARNINGS=ignore COLUMNS=120"


_VOLATILE = (
    (re.compile(r"0x[0-9a-fA-F]{4,}"), "0x…"),
    (re.compile(r"/tmp/[\w./-]*"), "/tmp/…"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:s|ms|seconds?|sec)\b"), "… s"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?"), "<date>"),
    (re.compile(r"\bline \d+"), "line …"),
    (re.compile(r"(\.py):\d+"), r"\1:…"),
    (re.compile(r"=+"), "="),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One step. `out`: what it printed or displayed; `error`: the exception's name, "" for none, "TooSlow" where it did
    not end; `message`: the exception's; `views`: other texts of the value."""

    out: str
    error: str = ""
    message: str = ""
    views: tuple[tuple[str, str], ...] = ()


async def run_probes(
    sandbox: Sandbox, probes: Sequence[Probe], packages: Sequence[str], views: Sequence[str] = ()
) -> dict[str, tuple[Seen, ...]]:
    """What each probe showed, by its name: one `Seen` a step of a session, one for a command.

    A session that is stopped or dies has fewer steps, the last one "TooSlow" or "Died". Raises SandboxFailed."""
    await sandbox.write(f"{_PLACE}/probe_session.py", _DRIVER.read_bytes())
    found = {}
    for probe in probes:
        place = f"{_PLACE}/{probe.name}"
        for path, text in probe.files:
            await sandbox.write(f"{place}/{path}", text.encode("utf-8", "surrogateescape"))
        work = _session(sandbox, probe, place, packages, views) if probe.steps else _command(sandbox, probe, place)
        found[probe.name] = await work
    return found


def views_for(statement: Statement, packages: Sequence[str]) -> tuple[str, ...]:
    """Ways to look at values that the text is about: a package's own printers."""
    if "sympy" not in packages:
        return ()
    words = statement.plain.lower()
    about = {"sympy.latex": ("latex", "jupyter"), "sympy.pretty": ("pretty", "pprint")}
    return ("sympy.srepr", *(view for view, signs in about.items() if any(sign in words for sign in signs)))


async def _session(
    sandbox: Sandbox, probe: Probe, place: str, packages: Sequence[str], views: Sequence[str]
) -> tuple[Seen, ...]:
    request = {"steps": probe.steps, "packages": packages, "views": views, "step_seconds": STEP_SECONDS}
    report = f"{place}/.report"
    session = f"python ../probe_session.py {shlex.quote(report)}"
    done = await _run(sandbox, place, session, json.dumps(request).encode("ascii"))
    try:
        lines = (await sandbox.read(report, limit=REPORT_BYTES)).split(b"\n")
    except (FileNotFoundError, ValueError):
        lines = []
    steps = [seen(raw) for raw in map(_object, lines) if raw is not None]
    if len(steps) < len(probe.steps):
        steps.append(Seen("", "TooSlow" if done.timed_out else "Died", done.output[-300:] if not steps else ""))
    return tuple(steps)


async def _command(sandbox: Sandbox, probe: Probe, place: str) -> tuple[Seen, ...]:
    done = await _run(sandbox, place, probe.command)
    failed = f"exit {done.exit_code}" if done.exit_code else ""
    return (seen({"out": done.output, "error": "TooSlow" if done.timed_out else failed}),)


async def _run(sandbox: Sandbox, place: str, command: str, stdin: bytes = b"") -> Exec:
    """Run a probe's command in the directory of its own."""
    line = f"mkdir -p {shlex.quote(place)} && cd {shlex.quote(place)} && export {_ENVIRONMENT} && {command}"
    return await sandbox.exec(line, stdin=stdin, timeout=PROBE_SECONDS, output_bytes=20_000, merge=True)


def _object(line: bytes) -> Mapping[str, object] | None:
    try:
        raw = json.loads(line) if line else None
    except (ValueError, RecursionError):  # torn by a kill, or no line of ours
        return None
    return raw if isinstance(raw, dict) else None


def seen(raw: Mapping[str, object]) -> Seen:
    """A step from the line that the sandbox wrote; anything not as it should be counts as empty text."""
    views = raw.get("views")
    pairs = views.items() if isinstance(views, Mapping) else ()
    return Seen(
        out=steady(_text(raw, "out")),
        error=_text(raw, "error")[:100],
        message=steady(_text(raw, "message")),
        views=tuple(sorted((str(name)[:60], steady(str(text))) for name, text in pairs)),
    )


def steady(text: str) -> str:
    """The text without what differs from run to run: addresses, times, temporary places, line numbers."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    plain = "\n".join(line.rstrip() for line in text.split("\n")).strip()
    return plain if len(plain) <= KEPT_CHARS else plain[:KEPT_CHARS] + "…"


def _text(raw: Mapping[str, object], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""
