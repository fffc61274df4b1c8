"""Log parsers of suites that the official package does not know, in the form of that package's own."""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tasks.errors import InputError, words_of

RESULTS = "results"
"""The parser of a script that prints, between the markers, one line of JSON: statuses by test."""
MULTI = "multi-swe-bench"
"""The parsers of this package, each with `:owner/name:number` after that."""


def parser_of(name: str) -> Callable[[str, Any], dict[str, str]]:
    """The parser of that name, which it bears: status by test, of a script's output. Only what is PASSED passes: these
    suites take a skipped test for none. Raises InputError where there is none."""
    read = _results if name == RESULTS else _of_multi(name)

    def parser(log: str, spec: Any) -> dict[str, str]:
        with contextlib.redirect_stdout(sys.stderr):  # some print
            return {test: "PASSED" if status == "PASSED" else "FAILED" for test, status in read(log).items()}

    parser.__name__ = name
    return parser


def _results(log: str) -> dict[str, str]:
    """The first line that is an object in JSON."""
    for line in log.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if line.startswith("{"):
                return dict(json.loads(line))
    return {}


def _of_multi(name: str) -> Callable[[str], dict[str, str]]:
    package, repository, number, *_ = (*name.split(":"), "", "0")
    try:
        importlib.import_module("multi_swe_bench.harness.repos")
        known = importlib.import_module("multi_swe_bench.harness.instance").Instance._registry
        reader = known[repository](SimpleNamespace(number=int(number)), None)
    except (ImportError, KeyError) as error:
        what = f"logs of {repository} are read by its suite's own package, which is not there ({words_of(error)})"
        raise InputError(f"{what}: pip install {package}") from error

    def read(log: str) -> dict[str, str]:
        found = reader.parse_log(log)
        return dict.fromkeys(found.failed_tests, "FAILED") | dict.fromkeys(found.passed_tests, "PASSED")

    return read
