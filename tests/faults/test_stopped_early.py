"""A run that is stopped before or while it works: Ctrl-C in the middle of an import, a terminal that hangs up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent import resume
from tests.faults.test_resume import run_directory, slow_script, start, turns
from tests.support.calculator import make_repository
from tests.support.model_server import serving
from tests.support.waiting import wait_for

INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may have it ignored
wanted = sys.argv.pop()

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from agent.__main__ import main
sys.argv[1:] = ["solve", "/nonexistent.toml"]
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["agent.cli", "argparse", "agent.commands.solve_command", "agent.assemble"])
def test_ctrl_c_during_an_import_prints_no_traceback(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "troop: interrupted\n")


@pytest.mark.network
@pytest.mark.bubblewrap
def test_a_terminal_that_hangs_up_stops_a_run_in_order_unless_it_was_told_to_ignore_that(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests may have it ignored
    with serving(slow_script) as server:
        harness = start(repository, out, server.url)
        wait_for(lambda: turns(out) >= 2)
        harness.send_signal(signal.SIGHUP)
        _, complained = harness.communicate(timeout=30)
        directory = run_directory(out)
        assert harness.returncode == 130 and f"troop resume {directory}" in complained.decode()
        assert resume(str(directory)).exit_code == 0
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does it
        try:
            harness = start(repository, tmp_path / "more", server.url)
        finally:
            signal.signal(signal.SIGHUP, before)
        wait_for(lambda: turns(tmp_path / "more") >= 2)
        harness.send_signal(signal.SIGHUP)
        assert harness.wait(timeout=60) == 0
