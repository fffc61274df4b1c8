"""What an issue's text shows becomes runnable probes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness.choosing.probes import probes_of, steps_of
from harness.choosing.probing import seen, steady
from harness.choosing.statement import Statement

DRIVER = Path(__file__).parents[2] / "harness/inside/probe_session.py"


def run_steps(
    tmp_path: Path, *steps: str, packages: tuple[str, ...] = (), seconds: float = 5.0
) -> list[dict[str, object]]:
    """The steps as the sandbox would run them."""
    wanted = {"steps": steps, "packages": packages, "views": [], "step_seconds": seconds}
    report = tmp_path / "report"
    subprocess.run([sys.executable, DRIVER, report], input=json.dumps(wanted), text=True, cwd=tmp_path, check=True)
    return [json.loads(line) for line in report.read_text().splitlines()]


def test_a_doctest_session_gives_what_was_typed_and_not_what_was_printed() -> None:
    assert steps_of(">>> x = 1\n>>> for i in [x]:\n...     print(i)\n...\n1\n>>> x + 1\n2\n") == [
        "x = 1",
        "for i in [x]:\n    print(i)",
        "x + 1",
    ]


def test_an_ipython_session_is_read_likewise() -> None:
    assert steps_of("In [1]: import a\n\nIn [2]: a.b(\n   ...: 1)\nOut[2]: 3\n") == ["import a", "a.b(\n1)"]


def test_a_script_ends_where_its_output_begins() -> None:
    assert steps_of("n = symbols('n')\nbell(n).limit(n, oo)\n\nOutput:\nbell(oo)\n") == [
        "n = symbols('n')",
        "bell(n).limit(n, oo)",
    ]


def test_print_statements_of_python_2_are_understood() -> None:
    assert steps_of("x = 1\nprint x, 2\n") == ["x = 1", "print(x, 2)"]


def test_a_traceback_or_a_table_is_no_code() -> None:
    assert steps_of('Traceback (most recent call last):\n  File "a.py", line 1, in b\nValueError: no\n') == []
    assert steps_of("platform darwin -- Python 3.11.1, pytest-7.2.0\n") == []


def test_blocks_and_calls_in_the_text_become_one_session() -> None:
    text = "`nthroot(17*17, 5)` misses a root\n\nLook:\n\n```python\nx = nthroot(4, 2)\nx\n```\n"
    (probe,) = probes_of(Statement(text))
    assert probe.steps == ("x = nthroot(4, 2)", "x", "nthroot(17*17, 5)")


def test_a_path_in_backquotes_is_no_division() -> None:
    assert probes_of(Statement("See `tests/test_wrap.py`, `setup.cfg` and `src/core/wrap.py`.")) == ()


def test_definitions_alone_are_no_probe() -> None:
    assert probes_of(Statement("Fix:\n```\ndef f(x):\n    return x\n```\n")) == ()


def test_files_that_the_text_shows_are_run_by_the_package_that_checks_them() -> None:
    text = "```py\n# test_a.py\ndef test_a():\n    assert 1\n```\nRunning `pytest test_a.py`.\n"
    probes = probes_of(Statement(text), ("pytest",))
    assert [p.command for p in probes] == ["pytest test_a.py", "python -m pytest -p no:cacheprovider test_a.py"]
    assert all(dict(p.files)["test_a.py"].startswith("# test_a.py") for p in probes)


def test_commands_that_change_the_machine_are_not_taken() -> None:
    text = "```bash\npip install x\nsudo python x.py\npython -c 'print(1)'\nrm -rf /tmp/x\n```\n"
    assert [p.command for p in probes_of(Statement(text))] == ["python -c 'print(1)'"]


def test_the_sources_of_a_manual_become_a_project() -> None:
    text = "```\n# example.py\n__all__ = []\n```\n```\n# index.rst\n.. automodule:: example\n   :members:\n```\n"
    probes = probes_of(Statement(text), ("sphinx",))
    assert {"conf.py", "example.py", "index.rst"} <= dict(probes[0].files).keys()
    assert "-b text" in probes[0].command


def test_later_steps_run_though_an_earlier_one_failed(tmp_path: Path) -> None:
    told = run_steps(tmp_path, "x = 3", "x / 0", "x + 1", "print('a')")
    assert [t["error"] for t in told] == ["", "ZeroDivisionError", "", ""]
    assert [t["out"] for t in told] == ["", "", "4\n", "a\n"]


def test_a_name_that_nothing_defines_is_looked_for_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/prices.py").write_text("def price():\n    return 7\n")
    told = run_steps(tmp_path, "price()", "nowhere()", packages=("shop",))
    assert [(t["out"], t["error"]) for t in told] == [("7\n", ""), ("", "NameError")]


def test_a_step_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    told = run_steps(tmp_path, "while True: pass", "1 + 1", seconds=0.3)
    assert [t["error"] for t in told] == ["TooSlow", ""]


def test_a_value_is_kept_though_the_text_sets_a_display_hook_of_its_own(tmp_path: Path) -> None:
    told = run_steps(tmp_path, "import sys\nsys.displayhook = lambda v: print('shown', v)", "5")
    assert told[1]["out"] == "shown 5\n"
    assert told[1]["views"] == {"str": "5", "type": "int"}


def test_what_differs_from_run_to_run_is_not_compared() -> None:
    one = seen({"out": "<A object at 0x7f01a2b3c4d5> in 0.12s\n", "error": "", "message": "", "where": "", "views": {}})
    two = seen({"out": "<A object at 0x7f99a2b3ffff> in 3.1s\n", "error": "", "message": "", "where": "", "views": {}})
    assert one == two
    assert steady("a\r\n b  \n") == "a\n b"


def test_the_statement_names_frames_exceptions_and_files() -> None:
    text = (
        'Traceback (most recent call last):\n  File "/home/me/site-packages/pkg/core.py", line 3, in go\n    x\n'
        '  File "/home/me/site-packages/pkg/low.py", line 9, in deep\n    y\nValueError: bad\n'
    )
    read = Statement(text)
    assert [(f.path, f.function) for f in read.frames] == [("pkg/core.py", "go"), ("pkg/low.py", "deep")]
    assert read.exceptions == {"ValueError"}
