"""Test files and ids as the labels of Django's test runner."""

from __future__ import annotations

import pytest

from harness.testing.runners.django import Django, Site, label_of

COMMAND = "python tests/runtests.py --verbosity 2 --parallel 1"


@pytest.mark.parametrize(
    ("test", "label"),
    [
        ("tests/queries/test_q.py", "queries.test_q"),
        ("./tests/queries/test_q.py", "queries.test_q"),
        ("tests/queries/", "queries"),
        ("tests/queries/tests.py::QTests::test_x", "queries.tests.QTests.test_x"),
        ("queries.tests.QTests", "queries.tests.QTests"),
        ("queries", "queries"),
    ],
)
def test_a_file_or_id_is_a_dotted_name_below_the_runners_directory(test: str, label: str) -> None:
    assert label_of(COMMAND, test) == label


def test_the_runner_is_known_by_its_name() -> None:
    takes_labels = Django().recognises
    assert takes_labels(COMMAND) and takes_labels("./runtests.py") and takes_labels("A=1 ./tests/runtests.py -v2")
    assert not any(takes_labels(c) for c in ("python -m pytest", "make runtests", "x/myruntests.py"))


def test_a_runner_in_the_root_takes_paths_from_there() -> None:
    assert label_of("./runtests.py", "queries/test_q.py") == "queries.test_q"


def test_a_runner_in_a_folder_takes_labels_from_there() -> None:
    command = "cd tests && ./runtests.py"
    told = "cd tests && python /opt/troop/inside/troop_django.py ./runtests.py"
    assert Django().limited(command, ["tests/queries/test_q.py"]) == f"{told} queries.test_q"
    assert Site().limited("cd web && python manage.py test", ["web/shop/tests.py::Shop::test_it"]) == (
        "cd web && python /opt/troop/inside/troop_django.py manage.py test shop.tests.Shop.test_it"
    )


def test_of_very_many_ids_the_files_are_named() -> None:
    ids = [f"tests/queries/test_q.py::Q::test_{n}" for n in range(5000)]
    limited = Django().limited("python3 tests/runtests.py", ids)
    assert limited == "python3 /opt/troop/inside/troop_django.py tests/runtests.py queries.test_q"
    assert Site().limited("python -m django test", ["a/tests.py"]) == (
        "python /opt/troop/inside/troop_django.py -m django test a.tests"
    )
