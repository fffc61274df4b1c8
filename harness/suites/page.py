"""Evaluations as one page of HTML that needs nothing else, and as Markdown: what their templates are given."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.records import Json
from harness.scaling.study import Study
from harness.suites.view import expenses, measures, notes, title
from harness.views.page import filled


def evaluation_page(
    named: Sequence[tuple[str, Json]], study: Study | None, links: Mapping[str, str], **more: Any
) -> str:
    """The page of the evaluations of these names and reports, and of the study of all their samples.

    `links`: pages of instances, by name of the evaluation and id, as in "eval-quixbugs/gcd". `more`: `live`, `home` as
    in `harness.views.page.run_page`."""
    told = [_told(name, report) for name, report in named]
    data = study.to_json() if study else None
    heading = "; ".join(each["title"] for each in told) or "Samples from elsewhere"
    return filled("evaluation.html", {"study": data}, title=heading, evaluations=told, study=data, links=links, **more)


def kind_of(task: Json) -> str:
    """What became of an instance of a report, in words."""
    if task["resolved"]:
        return "resolved"
    if task["failure"]:
        return "could not be worked on"
    if task["report"] is None:
        return "not begun"
    if task["selected"] is None:
        return "nothing was selected"
    if task["resolved"] is None:
        return "not graded"
    return "a right attempt was there, another was chosen" if task["correct"] else "no attempt was right"


def markdown(report: Json) -> str:
    """An evaluation's report as a page of Markdown: measures, costs, coverage, notes, and a line for every instance."""
    return filled("evaluation.md", report=report, **_told("", report))


def _told(name: str, report: Json) -> Json:
    """What the templates are told of one evaluation; of one from elsewhere, without figures of its own, its
    instances."""
    whole = "suite" in report
    return {
        "name": name,
        "title": title(report) if whole else name,
        "figures": [*measures(report), *expenses(report)] if whole else [],
        "notes": notes(report) if whole else [],
        "tasks": [(task, kind_of(task)) for task in report["tasks"]],
        "statuses": report.get("statuses") or {},
    }
