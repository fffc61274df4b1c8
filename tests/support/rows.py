"""A row of SWE-bench that says nothing but its name, for tests to fill in what they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks.swebench import Row

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_BARE = Row(
    instance_id="acme__lines-1",
    repo="acme/lines",
    base_commit=COMMIT,
    version="1.2",
    created_at=None,
    problem_statement="It fails.",
    patch="",
    test_patch="",
    fail_to_pass=(),
    pass_to_pass=(),
    environment_setup_commit=COMMIT,
)


def bare_row(**fields: Any) -> Row:
    """The row with these fields (named as in `Row`) and nothing to grade by in the others."""
    return replace(_BARE, **fields)
