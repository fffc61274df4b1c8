"""The choice of regression tests: green, near to the patch, within the time, and the same every time."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from harness.code.import_graph import graph_of
from harness.evidence.regression import Touched, affinity, choose, near_files, nearness, touched_by
from harness.patches.paths import holds_tests
from harness.records import Outcome, TestReport


def baseline(durations: Mapping[str, float], others: Mapping[str, Outcome] | None = None) -> TestReport:
    outcomes: dict[str, Outcome] = {**dict.fromkeys(durations, "passed"), **(others or {})}
    return TestReport(outcomes, 1, False, True, 1.0, durations=durations)


def patch(*paths: str) -> str:
    return "".join(f"diff --git a/{p} b/{p}\n--- a/{p}\n+++ b/{p}\n@@ -1 +1 @@\n-a = 1\n+a = 2\n" for p in paths)


SUITE = {
    "tests/test_alpha.py::test_one": 4.0,
    "tests/test_alpha.py::test_two": 1.0,
    "tests/test_beta.py::test_one": 4.0,
    "tests/test_gamma.py::test_one": 4.0,
}


def test_all_green_tests_are_chosen_where_they_fit() -> None:
    report = baseline(SUITE, {"tests/test_alpha.py::test_red": "failed", "tests/test_beta.py::test_off": "skipped"})
    assert choose(report, (), patch("pkg/beta.py"), seconds=60) == tuple(sorted(SUITE))


def test_flaky_tests_are_never_chosen() -> None:
    flaky = ("tests/test_beta.py::test_one",)
    for seconds in (60.0, 7.0):
        assert flaky[0] not in choose(baseline(SUITE), flaky, patch("pkg/beta.py"), seconds=seconds)


def test_the_test_file_named_after_the_touched_module_comes_first() -> None:
    assert choose(baseline(SUITE), (), patch("pkg/beta.py"), seconds=6.5) == ("tests/test_beta.py::test_one",)
    assert choose(baseline(SUITE), (), patch("pkg/gamma.py"), seconds=6.5) == ("tests/test_gamma.py::test_one",)


def test_the_tests_that_import_the_touched_module_come_before_others() -> None:
    imports = graph_of({"tests/test_gamma.py": b"from pkg.util.deep import x\n", "src/pkg/util/deep.py": b"x = 1\n"})
    chosen = choose(baseline(SUITE), (), patch("src/pkg/util/deep.py"), seconds=6.5, imports=lambda: imports)
    assert chosen == ("tests/test_gamma.py::test_one",)


def test_time_that_a_long_test_leaves_is_given_to_shorter_ones() -> None:
    chosen = choose(baseline(SUITE), (), patch("pkg/alpha.py"), seconds=4.0)
    assert chosen == ("tests/test_alpha.py::test_two",)


def test_something_is_chosen_even_with_no_time() -> None:
    assert len(choose(baseline(SUITE), (), patch("pkg/alpha.py"), seconds=0)) == 1


def test_a_package_is_told_by_its_folder() -> None:
    assert affinity("tests/test_forms.py", "django/forms/__init__.py") >= 100
    assert affinity("tests/forms/test_fields.py", "django/forms/widgets.py") > affinity(
        "tests/admin/test_fields.py", "django/forms/widgets.py"
    )


def test_a_packages_name_in_few_test_files_makes_them_near_and_in_many_it_does_not() -> None:
    touched = Touched(("sphinx/ext/autodoc/importer.py",))
    autodoc = [f"tests/test_ext_autodoc{n}.py" for n in ("", "_configs", "_events", "_mock", "_private", "_preserve")]
    others = [f"tests/test_ext_{chr(n)}x.py" for n in range(97, 123)] + [f"tests/test_{n}.py" for n in range(120)]
    texts = dict.fromkeys([*autodoc, *others, "tests/test_ext_viewcode.py"], "")
    assert near_files(texts, touched) == sorted(autodoc)
    assert near_files(texts, Touched(("sphinx/ext/viewcode.py",)))[0] == "tests/test_ext_viewcode.py"
    assert near_files({"tests/test_build.py": ""}, touched) == []
    assert near_files({"tests/test_build.py": ""}, touched, least=0) == ["tests/test_build.py"]


def test_tests_beside_the_code_are_nearer_than_those_far_away() -> None:
    touched = "pkg/io/csv/reader.py"
    assert affinity("pkg/io/csv/tests/test_x.py", touched) > affinity("pkg/net/tests/test_x.py", touched)


@given(
    st.dictionaries(
        st.sampled_from([f"tests/test_{m}.py::test_{n}" for m in "abc" for n in range(9)]), st.floats(0, 20)
    ),
    st.floats(0, 100),
)
def test_the_choice_fits_the_time_and_does_not_depend_on_order(durations: dict[str, float], seconds: float) -> None:
    chosen = choose(baseline(durations), (), patch("pkg/a.py"), seconds=seconds)
    backwards = dict(reversed(list(durations.items())))
    assert chosen == choose(baseline(backwards), (), patch("pkg/a.py"), seconds=seconds)
    assert set(chosen) <= set(durations)
    # One test is chosen however long it takes.
    assert sum(durations[test] for test in chosen) <= max(seconds, *(durations[test] for test in chosen), 0)


TEXTS = {
    "lib/tests/test_alpha.py": "from lib.alpha import spin\n",
    "lib/tests/test_beta.py": "import lib\n",
    "tests/test_far.py": "from lib import everything\n\n\ndef test_it():\n    everything.spin_slowly()\n",
    "tests/test_more.py": "import os\n",
}
ALPHA = b"class Wheel:\n    def spin_slowly(self):\n        a = 1\n        return a\n\n\ndef other():\n    a = 1\n"


def at_line(path: str, line: int) -> str:
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -{line} +{line} @@\n-        a = 1\n+        a"
        " = 2\n"
    )


def test_what_is_touched_is_files_and_the_names_around_the_changed_lines() -> None:
    found = touched_by(
        [at_line("lib/alpha.py", 3), patch("lib/new.py", "tests/test_far.py")], {"lib/alpha.py": ALPHA}.get
    )
    assert found == Touched(("lib/alpha.py",), ("Wheel", "spin_slowly"))


def test_new_files_count_only_where_the_patches_touch_nothing_else() -> None:
    """Else a script that one candidate leaves behind, `views.py`, makes each `test_views.py` near."""
    base = {"lib/alpha.py": ALPHA}
    assert touched_by([patch("lib/new.py")], base.get).paths == ("lib/new.py",)
    assert touched_by([patch("lib/new.py"), at_line("lib/alpha.py", 3)], base.get).paths == ("lib/alpha.py",)


def test_a_test_that_quotes_a_message_of_the_touched_function_is_near() -> None:
    source = b'def check(x):\n    a = 1\n    raise ValueError(f"{x!r} must be a whole number, not {type(x)}")\n'
    touched = touched_by([at_line("lib/alpha.py", 2)], {"lib/alpha.py": source}.get)
    assert touched.names == ("check", "must be a")
    texts = {**TEXTS, "tests/test_far.py": "def test_it():\n    assert wrong(7) == '7 must be a whole number'\n"}
    assert near_files(texts, Touched(touched.paths, ("check",)))[1:] == ["lib/tests/test_beta.py"]
    assert "tests/test_far.py" in near_files(texts, touched)
    # Of many the longest, and of those as long always the same.
    messages = [f"say {one}{other} twice" for one in "abcde" for other in "abcdefghij"]
    body = "".join(f"    f('{message}')\n" for message in messages)
    found = touched_by([at_line("a.py", 2)], {"a.py": f"def check(x):\n    a = 1\n{body}".encode()}.get).names
    assert found == ("check", *messages[-30:])
    # Only of functions: a class may have hundreds.
    assert touched_by([at_line("a.py", 3)], {"a.py": b'class A:\n    x = "one two three"\n    a = 1\n'}.get).names == (
        "A",
    )


def test_the_folder_of_a_test_file_may_name_the_module() -> None:
    assert affinity("tests/model_options/test_pk.py", "db/models/options.py") == 30
    assert affinity("tests/test_pk.py", "db/models/options.py") == 0


def test_a_file_that_cannot_be_parsed_has_no_names() -> None:
    assert touched_by([patch("old.py")], {"old.py": b"print 'x'\n"}.get) == Touched(("old.py",))


def test_the_near_files_are_those_named_after_importing_or_mentioning_what_is_touched() -> None:
    assert near_files(TEXTS, Touched(("lib/alpha.py",), ("spin_slowly",))) == [
        "lib/tests/test_alpha.py",
        "tests/test_far.py",
        "lib/tests/test_beta.py",
    ]


def test_a_test_file_is_found_that_neither_name_nor_place_tells_of() -> None:
    """Through what the package re-exports, and through another module."""
    sources = {
        "lib/__init__.py": b"from .core import *\n",
        "lib/core/__init__.py": b"from lib.core.wheels import Wheel\nfrom .engines import Engine\n",
        "lib/core/wheels.py": b"class Wheel: ...\n",
        "lib/core/engines.py": b"class Engine: ...\n",
        "lib/cars.py": b"from lib.core.wheels import Wheel\n",
        "checks/test_rolling.py": b"from lib import Wheel\n",
        "checks/test_driving.py": b"from lib.cars import Car\n",
        **{f"checks/test_{n}.py": b"from lib import Engine\n" for n in range(8)},
    }
    texts = {path: text.decode() for path, text in sources.items() if holds_tests(path)}
    touched = Touched(("lib/core/wheels.py",))
    assert near_files(texts, touched) == []
    assert near_files(texts, touched, graph_of(sources)) == ["checks/test_rolling.py", "checks/test_driving.py"]


def test_what_every_test_file_imports_tells_of_none() -> None:
    sources = {"lib/core.py": b"x = 1\n", **{f"tests/test_{n}.py": b"from lib.core import x\n" for n in range(9)}}
    tests = [path for path in sources if holds_tests(path)]
    with_graph, without = (nearness(tests, ["lib/core.py"], graph) for graph in (graph_of(sources), graph_of({})))
    assert with_graph == without


def test_a_name_that_many_files_mention_says_nothing() -> None:
    texts = {f"tests/test_{n}.py": "get()\n" for n in range(10)}
    assert near_files(texts, Touched(("lib/alpha.py",), ("get",))) == []


def test_a_file_that_is_not_near_is_not_among_them() -> None:
    assert near_files({"tests/test_more.py": "import os\n"}, Touched(("lib/alpha.py",))) == []
