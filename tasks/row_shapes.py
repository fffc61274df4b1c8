"""Rows of other suites, in the fields that a newer row of SWE-bench has (docs/swe-bench.md has the table).

A suite is known by its columns. What follows from a row's fields by filling in a template stands in row_shapes.toml.
"""

import ast
import base64
import json
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from tasks.errors import InputError, words_of

_LOCALE = "LANG=C.UTF-8 LC_ALL=C.UTF-8 "

Fields = Mapping[str, Any]


def as_newer(place: str, fields: Fields, beside: Path) -> Fields:
    """The row as a newer row of SWE-bench has it; as it is where it is of no other suite. `beside`: the directory where
    the rows are; there, or one level up, are SWE-bench Pro's `run_scripts`. Raises InputError, naming the place."""
    given = {name: value for name, value in fields.items() if value is not None}
    suite = next((suite for suite, (marks, _) in _SUITES.items() if given.keys() >= marks), "")
    if not suite:
        return fields
    templates = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))[suite]
    try:
        values = {"requirements": "", "interface": "", **given, **_SUITES[suite][1](given, beside)}
        own = {"image": given["image"]} if "image" in given else {}
        return {**values, **{name: Template(text).substitute(values) for name, text in templates.items()}, **own}
    except Exception as error:  # whatever a row has in place of what is looked for
        why = f"the field {error.args[0]} is missing" if isinstance(error, KeyError) else words_of(error)
        raise InputError(f"{place}: this is no whole row of {suite}: {why}") from error


def _pro(fields: Fields, beside: Path) -> Fields:
    ways = [each / "run_scripts" / fields["instance_id"] for each in (beside.parent, beside)]
    scripts = ways[not ways[0].is_dir()]
    run, parser = (base64.b64encode((scripts / name).read_bytes()).decode() for name in ("run_script.sh", "parser.py"))
    return {
        **{name.upper(): _listed(fields[name]) for name in ("fail_to_pass", "pass_to_pass")},
        # Its last line fetches the hidden tests; those before it put the tree back.
        "fetch": fields["before_repo_set_cmd"].strip().rpartition("\n")[2],
        "tests": shlex.quote(",".join(_listed(fields["selected_test_files_to_run"]))),
        **{"run": run, "parser": parser},
    }


def _listed(value: str | list[str]) -> list[str]:
    """A list, or the text of one, in Python or JSON."""
    return ast.literal_eval(value) if isinstance(value, str) else value


def _rebench(fields: Fields, beside: Path) -> Fields:
    spec = {name: value for name, value in fields["install_config"].items() if value}
    spec |= {name: _LOCALE + spec[name] for name in ("install", "test_cmd") if name in spec}
    return {"spec": json.dumps(spec, sort_keys=True), "log_parser": spec["log_parser"]}


def _multi(fields: Fields, beside: Path) -> Fields:
    parts = (each.get(part) for each in fields["resolved_issues"] for part in ("title", "body"))
    fixed = [test for kind in ("f2p", "s2p", "n2p") for test in fields.get(f"{kind}_tests", ())]
    return {
        **{"base_commit": fields["base"]["sha"], "problem_statement": "\n\n".join(filter(None, parts))},
        **{"FAIL_TO_PASS": fixed, "PASS_TO_PASS": list(fields.get("p2p_tests", ()))},
        "published": f"{fields['org']}_m_{fields['repo']}".lower(),
    }


_SUITES: Mapping[str, tuple[set[str], Callable[[Fields, Path], Fields]]] = {
    "swe-bench-pro": ({"before_repo_set_cmd", "selected_test_files_to_run"}, _pro),
    "swe-rebench": ({"install_config"}, _rebench),
    "multi-swe-bench": ({"org", "number", "base", "resolved_issues"}, _multi),
}
"""Columns that only its rows have, and what no template says."""
