"""Run tests in a sandbox and read what really happened: a structured report, cross-checked with the exit code.

How a command is limited to tests, and what its report amounts to, says its `Runner` (`harness.testing.runners`).
"""

import json
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence

from harness.records import TestReport
from harness.sandbox.base import INSIDE, Sandbox
from harness.testing.report import OVERSIZED, REPORT_BYTES
from harness.testing.runners.registry import RUNNERS, runner_of

OUTPUT_BYTES = 64_000

_PYTHONPATH = re.compile(r"(?<![\w$-])PYTHONPATH=(?=([^\s;&|]*))")


async def run_tests(
    sandbox: Sandbox,
    command: str,
    ids: Sequence[str] = (),
    *,
    timeout: float,
    test_seconds: float | None = None,
    to_first_failure: bool = False,
    spread: int = 0,
    env: Mapping[str, str] | None = None,
) -> TestReport:
    """Run `command` in `WORKDIR`, limited to `ids` (tests, classes, files or directories, from there; empty: all).

    `timeout` in seconds for the whole run, then it is killed and the report holds what had finished. `test_seconds`:
    wall time that a phase of one test may take before the test fails and the run goes on. `to_first_failure`: the tests
    after the first that fails need not run. `spread`: a file of each directory in turn, by so many processes, where the
    framework can (0: as it would). The working tree gets no byte code and no caches. Raises SandboxFailed when the
    sandbox is gone; everything else is in the report."""
    place = f"/tmp/troop-tests-{secrets.token_hex(8)}"
    runner = runner_of(command)
    limited = runner.limited(command, ids, to_first_failure)
    result = await sandbox.exec(
        script(place, limited, settings(place, ids, test_seconds, to_first_failure, spread)),
        env=env,
        stdin=json.dumps(list(ids)).encode("ascii"),
        timeout=timeout,
        output_bytes=OUTPUT_BYTES,
        merge=True,
    )
    lines = await written(sandbox, place)
    await sandbox.exec(["rm", "-rf", place], cwd="/", timeout=30)
    return runner.read(result, lines)


async def written(sandbox: Sandbox, place: str) -> bytes:
    """What plugins wrote in a run whose files are in `place`."""
    try:
        return await sandbox.read(f"{place}/report", limit=REPORT_BYTES)
    except FileNotFoundError:
        return b""
    except ValueError:
        return OVERSIZED


def settings(
    place: str, ids: Sequence[str], test_seconds: float | None, to_first_failure: bool, spread: int = 0
) -> dict[str, str]:
    """What a plugin is told in the environment of one run whose files are in `place`; empty: not set."""
    return {
        "TROOP_REPORT": f"{place}/report",
        "TROOP_SELECT": f"{place}/select" if ids else "",
        "TROOP_TEST_SECONDS": f"{test_seconds:g}" if test_seconds else "",
        "TROOP_FIRST_FAILURE": "1" if to_first_failure else "",
        "TROOP_SPREAD": str(spread or ""),
    }


def script(place: str, command: str, variables: Mapping[str, str]) -> str:
    """The shell script that runs `command` with a plugin at hand; its standard input becomes the file PLACE/select."""
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/troop-hypothesis"}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in {**variables, **fixed}.items() if value)
    return (
        f"mkdir -m 700 {place} && cat > {place}/select || exit 125\n"
        f'export {exports} TROOP_ROOT="$PWD"\n'
        f'export PYTHONPATH="{INSIDE}${{PYTHONPATH:+:$PYTHONPATH}}"\n'
        + "".join(runner.exports for runner in RUNNERS)
        + f'exec "${{BASH:-sh}}" -c {shlex.quote(_keeping_path(command))} < /dev/null\n'
    )


def _keeping_path(command: str) -> str:
    """The command with `INSIDE` put into each PYTHONPATH that it sets anew, or no plugin would be found."""

    def kept(found: re.Match[str]) -> str:
        value = found[1]
        if "$PYTHONPATH" in value or "${PYTHONPATH" in value:
            return found[0]
        return found[0] + INSIDE + (":" if value.strip("'\"") else "")

    return _PYTHONPATH.sub(kept, command)
