"""QuixBugs as a suite: on a small checkout of the same layout made here, and on the real one where TROOP_QUIXBUGS names
it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.repository.workspace import open_workspace
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.quixbugs import load_quixbugs

# Each program: what the checkout holds as defective, and the right one.
PROGRAMS = {
    "largest": (
        "def largest(numbers):\n    numbers.sort()\n    return numbers[0]\n",
        "def largest(numbers):\n    numbers.sort()\n    return numbers[-1]\n",
    ),
    "countdown": (
        "def countdown(n):\n    while True:\n        yield n\n        n -= 1\n",
        "def countdown(n):\n    while n:\n        yield n\n        n -= 1\n",
    ),
    "pairs": (
        "def pairs(items):\n    return [(a, a) for a in items]\n",
        "def pairs(items):\n    return list(zip(items, items[1:]))\n",
    ),
    "sqrt": ("def sqrt(x, epsilon):\n    return x / 2\n", "def sqrt(x, epsilon):\n    return x ** 0.5 + epsilon / 3\n"),
    "chain_length": (
        "def chain_length(link):\n    return 0 if link is None else chain_length(link.next)\n",
        "def chain_length(link):\n    return 0 if link is None else 1 + chain_length(link.next)\n",
    ),
}
CASES: dict[str, list[object]] = {
    "largest": [[[[3, 1, 2]], 3], [[[1]], 1], [[[2, 5]], 5], [[[7, 8, 9]], 9], [[[4, 4]], 4]],
    "countdown": [[3, [3, 2, 1]], [[0], []], [[99], ["needs", "minutes"]], [[1], [1]]],
    "pairs": [[[[1, 2, 3]], [[1, 2], [2, 3]]], [[[1]], []]],
    "sqrt": [[[16, 0.5], 4], [[9, 0.1], 3], [[100, 0.001], 10]],
}
SLOW = """
import pytest
from load_testdata import load_json_testcases

testdata = load_json_testcases("countdown")

@pytest.mark.parametrize("input_data,expected", testdata)
def test_countdown(input_data, expected):
    if not pytest.run_slow and input_data == [99]:
        pytest.skip("minutes")
    assert list(countdown(*input_data)) == expected
"""
BY_HAND = """
import pytest
from link import Link

if pytest.use_correct:
    from correct_python_programs.chain_length import chain_length
else:
    from python_programs.chain_length import chain_length


END = Link(None)


def build(n):
    return None if n == 0 else Link(build(n - 1))


@pytest.mark.parametrize("n", [1, 2])
def test_some(n):
    assert chain_length(build(n)) == n


def test_none():
    assert chain_length(None) == 0


def test_end():
    assert chain_length(END) == 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of QuixBugs's layout with five programs of our own."""
    root = tmp_path / "checkout"
    for folder in ("python_programs", "correct_python_programs", "python_testcases", "json_testcases"):
        (root / folder).mkdir(parents=True)
    for name, (defective, right) in PROGRAMS.items():
        (root / "python_programs" / f"{name}.py").write_text(defective)
        (root / "correct_python_programs" / f"{name}.py").write_text(right)
    for name, cases in CASES.items():
        text = "\n".join(json.dumps(case) for case in cases)
        (root / "json_testcases" / f"{name}.json").write_text(text + "\n\n")
    link = "class Link:\n    def __init__(self, next):\n        self.next = next\n"
    (root / "python_programs" / "link.py").write_text(link)
    (root / "python_programs" / "chain_length_test.py").write_text("import chain_length\n")
    (root / "python_testcases" / "test_countdown.py").write_text(SLOW)
    (root / "python_testcases" / "test_chain_length.py").write_text(BY_HAND)
    return root


@pytest.fixture
def instances(checkout: Path, tmp_path: Path) -> dict[str, Instance]:
    loaded = load_quixbugs(checkout, tmp_path / "work")
    return {instance.task.id.removeprefix("quixbugs-"): instance for instance in loaded}


def tree(instance: Instance) -> Path:
    return Path(instance.task.repository.location)


def outcomes(place: Path, file: str, program: tuple[str, str] | None = None) -> dict[str, str]:
    """Outcome by test of one run of pytest, after the program is replaced by (name, text)."""
    if program:
        (place / f"{program[0]}.py").write_text(program[1])
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", file]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    lines = [line.split(" - ")[0].split() for line in done.stdout.splitlines() if "::" in line]
    return {line[1].partition("::")[2]: line[0] for line in lines if line[0] in ("PASSED", "FAILED", "ERROR")}


def hidden(instance: Instance, program: tuple[str, str] | None = None) -> dict[str, str]:
    """Outcomes of the grading tests."""
    assert instance.grading
    for path, text in instance.grading.files:
        (tree(instance) / path).write_text(text)
    return outcomes(tree(instance), instance.grading.files[0][0], program)


def test_every_program_with_test_cases_becomes_a_task(instances: dict[str, Instance]) -> None:
    assert sorted(instances) == sorted(PROGRAMS)
    for name, instance in instances.items():
        assert instance.task.failing_test and instance.task.failing_test.ids == (f"tests/test_{name}.py",)
        assert f"`{name}`" in instance.task.statement


def test_a_tree_holds_the_program_its_helpers_and_its_visible_tests_only(
    instances: dict[str, Instance], tmp_path: Path
) -> None:
    for name, instance in instances.items():
        workspace = open_workspace(instance.task.repository, tmp_path / "cache")
        helpers = ["link.py"] if name == "chain_length" else []
        assert workspace.files() == sorted([f"{name}.py", *helpers, f"tests/test_{name}.py"])
        assert workspace.read(f"{name}.py").decode() == PROGRAMS[name][0]


def test_half_of_the_cases_are_visible_and_all_of_them_grade(instances: dict[str, Instance]) -> None:
    visible = {name: set(outcomes(tree(i), f"tests/test_{name}.py")) for name, i in instances.items()}
    every = {name: set(hidden(i)) for name, i in instances.items()}
    assert visible["largest"] == {"test_largest[case1]", "test_largest[case3]", "test_largest[case5]"}
    assert every["largest"] == {f"test_largest[case{n}]" for n in range(1, 6)}
    assert visible["pairs"] == {"test_pairs[case1]"}
    assert visible["chain_length"] == {"test_some[1]", "test_some[2]", "test_end"}
    assert every["chain_length"] == visible["chain_length"] | {"test_none"}


def test_a_case_that_the_checkout_skips_for_its_slowness_is_left_out(instances: dict[str, Instance]) -> None:
    assert set(hidden(instances["countdown"])) == {f"test_countdown[case{n}]" for n in (1, 2, 3)}


def test_the_hidden_tests_fail_on_the_base_and_pass_on_the_right_program(instances: dict[str, Instance]) -> None:
    for name, instance in instances.items():
        assert "FAILED" in hidden(instance).values(), name
        right = hidden(instance, (name, PROGRAMS[name][1]))
        assert right and set(right.values()) == {"PASSED"}, name


def test_a_program_that_is_only_roughly_right_where_accuracy_is_asked_for_fails(instances: dict[str, Instance]) -> None:
    rough = "def sqrt(x, epsilon):\n    return x ** 0.5 + 0.05\n"
    found = hidden(instances["sqrt"], ("sqrt", rough))
    assert found == {"test_sqrt[case1]": "PASSED", "test_sqrt[case2]": "PASSED", "test_sqrt[case3]": "FAILED"}


def test_a_program_that_changes_its_argument_spoils_no_other_case(instances: dict[str, Instance]) -> None:
    spoiling = "def largest(numbers):\n    top = max(numbers)\n    numbers.clear()\n    return top\n"
    assert set(hidden(instances["largest"], ("largest", spoiling)).values()) == {"PASSED"}


def test_loading_again_gives_the_same_commits(checkout: Path, instances: dict[str, Instance], tmp_path: Path) -> None:
    again = load_quixbugs(checkout, tmp_path / "work")
    assert {i.task.id: i for i in again} == {i.task.id: i for i in instances.values()}
    elsewhere = load_quixbugs(checkout, tmp_path / "elsewhere")
    for one, other in zip(again, elsewhere, strict=True):
        here, there = (open_workspace(i.task.repository, tmp_path / "cache").base_commit for i in (one, other))
        assert here == there


def test_programs_are_chosen_by_name(checkout: Path, tmp_path: Path) -> None:
    for patterns in (["sqrt", "quixbugs-pairs"], ["sqrt,pairs"], ["quixbugs-[ps]*"], ["[ps]*"]):
        chosen = load_quixbugs(checkout, tmp_path / "work", patterns)
        assert [i.task.id for i in chosen] == ["quixbugs-pairs", "quixbugs-sqrt"]
    with pytest.raises(InputError, match="no instance is called 'largst'; the nearest are largest"):
        load_quixbugs(checkout, tmp_path / "elsewhere", ["largst"])
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_no_checkout_and_a_damaged_case_are_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--source"):
        load_quixbugs(tmp_path, tmp_path / "work")
    (checkout / "json_testcases" / "pairs.json").write_text("[[1], 2]\n[[1,\n")
    with pytest.raises(InputError, match=r"pairs\.json, line 2"):
        load_quixbugs(checkout, tmp_path / "work")


# The real thing


@pytest.fixture(scope="module")
def quixbugs() -> Path:
    named = os.environ.get("TROOP_QUIXBUGS")
    if not named:
        pytest.skip("TROOP_QUIXBUGS names no checkout of jkoppel/QuixBugs")
    return Path(named)


def test_all_forty_programs_load_and_nothing_of_the_corrected_ones_comes_along(quixbugs: Path, tmp_path: Path) -> None:
    loaded = load_quixbugs(quixbugs, tmp_path / "work")
    assert len(loaded) == 40
    for instance in loaded:
        name = instance.task.id.removeprefix("quixbugs-")
        assert (tree(instance) / f"{name}.py").read_bytes() == (
            quixbugs / "python_programs" / f"{name}.py"
        ).read_bytes()
        text = "".join(p.read_text() for p in tree(instance).rglob("*.py"))
        assert "correct_python_programs" not in text


def test_every_corrected_program_passes_all_of_its_hidden_tests(quixbugs: Path, tmp_path: Path) -> None:
    (tmp_path / "right" / "tests").mkdir(parents=True)
    loaded = load_quixbugs(quixbugs, tmp_path / "work")
    for instance in loaded:
        name = instance.task.id.removeprefix("quixbugs-")
        for helper in tree(instance).glob("*.py"):
            (tmp_path / "right" / helper.name).write_text(helper.read_text())
        corrected = quixbugs / "correct_python_programs" / f"{name}.py"
        (tmp_path / "right" / f"{name}.py").write_text(corrected.read_text())
        assert instance.grading
        for path, text in instance.grading.files:
            (tmp_path / "right" / path).write_text(text)
    found = outcomes(tmp_path / "right", "tests")
    assert set(found.values()) == {"PASSED"}
    assert len(found) > 200
