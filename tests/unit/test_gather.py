"""Which packages a repository holds, which probes could tell anything, and whose fault is whose."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.choice.pool import Lookout, Place, gather
from harness.choosing.evidence_store import Base, evidence_of
from harness.choosing.gather import import_names, tells
from harness.choosing.pool import Sample
from harness.choosing.probe_facts import Seen
from harness.choosing.ranker import SHIPPED, read_weights
from harness.sandbox.base import Limits


def test_packages_are_found_with_and_without_a_source_directory() -> None:
    assert import_names(["sympy/__init__.py", "sympy/core/__init__.py", "sympy/core/a.py", "bin/x.py", "setup.py"]) == (
        "sympy",
    )
    assert import_names(["src/flask/__init__.py", "src/flask/app.py", "tests/__init__.py", "tests/test_a.py"]) == (
        "flask",
    )


def test_probes_tell_nothing_where_every_step_wants_a_name_that_the_patch_does_not_define_either() -> None:
    base = Base(probes={"session": (Seen("", "NameError", "name 'expr' is not defined"),)})
    assert not tells(base, "+    return expr\n")
    assert tells(base, "+def expr():\n")
    assert tells(Base(probes={"session": (Seen("1"),)}), "")
    assert not tells(Base(probes={}), "")


def test_what_goes_wrong_on_one_instance_ends_no_other(tmp_path: Path) -> None:
    patch = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n"
    samples = {name: (Sample(name, "tool", "tool", patch),) for name in ("broken", "well")}
    said: list[str] = []

    def place_of(instance: str) -> Place | None:
        if instance == "broken":
            raise RecursionError("much too deep")
        return None

    def gathered(names: tuple[str, ...]) -> None:
        lookout = Lookout(tmp_path, place_of, False, Limits(), "auto", asyncio.Semaphore(1), said.append)
        chosen = {name: samples[name] for name in names}
        work = gather(lookout, chosen, witnesses={}, weights=read_weights(SHIPPED), near_seconds=1.0, at_once=2)
        asyncio.run(work)

    gathered(("broken", "well"))
    assert any(line.startswith("broken: RecursionError: much too deep") for line in said)
    assert evidence_of(tmp_path, "well", samples["well"]).found
    with pytest.raises(RecursionError):
        gathered(("broken",))
