"""Hidden means hidden: what solves cannot even name the grading data."""

from __future__ import annotations

import ast
from pathlib import Path

AGENT = Path(__file__).parents[2] / "agent"


def names(path: Path) -> set[str]:
    """Every name that a module uses, imports or spells as an attribute."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found |= {*name.split("."), other or ""}
            case ast.ImportFrom(module=module):
                found |= set((module or "").split("."))
            case ast.Constant(value=str(text)):  # an annotation in quotes
                found |= {text}
            case _:
                pass
    return found


def test_nothing_that_solves_names_grading() -> None:
    command_line = {AGENT / "cli.py", *(AGENT / "commands").rglob("*.py")}
    solving = [p for p in AGENT.rglob("*.py") if p not in command_line]
    assert len(solving) > 20
    naming = [str(p.relative_to(AGENT)) for p in solving if {"Grading", "Instance", "grade"} & names(p)]
    assert naming == []


def test_the_search_would_find_it() -> None:
    assert "Grading" in names(AGENT / "commands" / "conclude.py")
