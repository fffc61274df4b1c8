"""One process at a time works on a run; the lock dies with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.lock import run_lock
from tasks.errors import EnvironmentFailed, RunLocked

HOLDER = """
import sys, time
from pathlib import Path
from harness.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run-7"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLocked) as caught, run_lock(run):
            pass
        said = str(caught.value)
        assert "run-7" in said
        assert f"process {holder.pid} on {os.uname().nodename} since 20" in said
        assert caught.value.exit_code == 2
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    with run_lock(run):
        pass


def test_it_can_be_taken_again_after_release_even_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path):
        with pytest.raises(RunLocked, match=f"process {os.getpid()} "), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        pass


def test_a_holder_that_has_not_written_yet_is_another_process(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(RunLocked, match="worked on by another process"), run_lock(tmp_path):
            pass


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailed, match="cannot be used"), run_lock(tmp_path / "file" / "run"):
        pass
