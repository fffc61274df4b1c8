"""Rows of other suites, made by hand in the shape that their data sets have, all of one small bug."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.graded_instance import GOLD, make_row

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUG = "add() subtracts."

RUN_SCRIPT = """\
#!/bin/bash
cd /app
for file in ${1//,/ }; do python3 - "$file" <<'EOF'
import sys
sys.path.insert(0, ".")
scope = {}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), scope)
for name in [name for name in scope if name.startswith("test_")]:
    try:
        scope[name]()
        print("PASSED", name.replace("_", " "))
    except Exception:
        print("FAILED", name.replace("_", " "))
EOF
done
"""
PARSER = """\
import json, sys
lines = [line.split(" ", 1) for line in open(sys.argv[1]).read().splitlines()]
tests = [{"name": name, "status": status} for status, name in lines if status.isupper()]
json.dump({"tests": tests}, open(sys.argv[3], "w"))
"""


def pro(base: str = COMMIT, fixed: str = COMMIT, **fields: Any) -> dict[str, Any]:
    """A row of SWE-bench Pro; `fixed`: the commit that has the hidden tests. No column of it says a version."""
    return {
        "repo": "acme/lines",
        "instance_id": f"instance_acme__lines-{base}-v{COMMIT}{COMMIT}",
        "base_commit": base,
        "patch": GOLD,
        "test_patch": make_row(base).test_patch,
        "problem_statement": BUG,
        "requirements": "- add(2, 2) is 4",
        "interface": "No new interfaces are introduced",
        "repo_language": "python",
        "fail_to_pass": "['test add']",
        "pass_to_pass": '["test double"]',
        "before_repo_set_cmd": f"git reset --hard {base}\ngit clean -fd \ngit checkout {base} \n"
        f"git checkout {fixed} -- tests/test_calc.py",
        "selected_test_files_to_run": '["tests/test_calc.py"]',
        "dockerhub_tag": "acme.lines-acme__lines-1",
        **fields,
    }


def write_scripts(checkout: Path, row: dict[str, Any]) -> None:
    """The row's scripts, as the suite's repository has them."""
    place = checkout / "run_scripts" / row["instance_id"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "run_script.sh").write_text(RUN_SCRIPT)
    (place / "parser.py").write_text(PARSER)


def rebench(base: str = COMMIT, **fields: Any) -> dict[str, Any]:
    """A row of SWE-rebench: how it is installed and tested stands in `install_config`, with nulls."""
    same = make_row(base)
    return {
        "repo": "acme/lines",
        "instance_id": "acme__lines-2",
        "base_commit": base,
        "patch": GOLD,
        "test_patch": same.test_patch,
        "problem_statement": BUG,
        "version": "0.1",
        "created_at": "2024-01-01 00:00:00",
        "environment_setup_commit": base,
        "install_config": {
            "python": "3.9",
            "install": "python -m pip install -e .",
            "test_cmd": "pytest -rA",
            "log_parser": "parse_log_pytest",
            "pip_packages": ["pytest"],
            "pre_install": None,
            "packages": None,
        },
        "FAIL_TO_PASS": list(same.fail_to_pass),
        "PASS_TO_PASS": list(same.pass_to_pass),
        "docker_image": "swerebench/sweb.eval.x86_64.acme_1776_lines-2",
        **fields,
    }


def multi(base: str = COMMIT, **fields: Any) -> dict[str, Any]:
    """A row of Multi-SWE-bench: tests by what they were before and after, and no command."""
    ran = {"run": "PASS", "test": "FAIL", "fix": "PASS"}
    return {
        "org": "jqlang",
        "repo": "jq",
        "number": 7,
        "state": "closed",
        "title": "Mend add",
        "body": "",
        "base": {"label": "jqlang:master", "ref": "master", "sha": base},
        "resolved_issues": [{"number": 5, "title": "add", "body": BUG}, {"number": 6, "title": "Also", "body": None}],
        "fix_patch": GOLD,
        "test_patch": make_row(base).test_patch,
        "f2p_tests": {"test_add": ran},
        "s2p_tests": {},
        "n2p_tests": {"test_new": ran},
        "p2p_tests": {"test_double": ran},
        **fields,
    }


def write(file: Path, *rows: dict[str, Any]) -> Path:
    """The rows, one a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
