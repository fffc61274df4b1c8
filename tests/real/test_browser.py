"""The pages in a real headless Chromium: they load without a complaint, unfold, filter, link, and follow a run live."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands.view_command import PageServer
from harness import trace
from harness.scaling.imported import of_evaluation
from harness.scaling.study import study
from harness.suites.page import evaluation_page
from harness.views.page import run_page
from tests.support.browser import Browser
from tests.support.played import evaluation, played, write_run
from tests.unit.test_page import EVIL

pytestmark = pytest.mark.browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


def opened(browser: Browser, page: str, place: Path, mark: str = "", width: int = 1440) -> None:
    place.write_text(page, encoding="utf-8")
    browser.open(f"file://{place}{mark}", width=width)


def fits(browser: Browser) -> bool:
    """Whether nothing makes the page itself wider than the screen."""
    return bool(browser.run("document.documentElement.scrollWidth <= innerWidth"))


def calm(browser: Browser) -> None:
    """Assert that nothing went wrong, and that nothing was asked for but the page."""
    assert browser.problems == []
    assert all(each.startswith(("file:", "http://127.0.0.1:")) for each in browser.requests), browser.requests


def test_a_run_loads_and_an_attempt_unfolds_when_it_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    opened(browser, run_page(played(6, 3)), tmp_path / "run.html")
    assert browser.run("document.querySelectorAll('.turns').length") == 0, "made when it is unfolded"
    browser.run("document.querySelector('#attempt-2 > summary').click()")
    browser.until("document.querySelectorAll('#attempt-2 .turns > li').length === 5")
    browser.run("document.querySelector('#attempt-2-turn-2 > summary').click()")
    browser.until("document.querySelector('#attempt-2-turn-2').innerText.includes('return sum(values) / len(values)')")
    browser.run("document.querySelector('button[data-on=c3]').click()")
    assert "assert 3 == 2" in browser.run("document.querySelector('#said[open]').innerText")
    calm(browser)


def test_a_link_to_a_turn_opens_it(browser: Browser, tmp_path: Path) -> None:
    opened(browser, run_page(played(6, 8)), tmp_path / "run.html", "#attempt-2-turn-7")
    browser.until("document.querySelector('#attempt-2-turn-7')?.open")
    browser.until("document.activeElement.closest('details')?.id === 'attempt-2-turn-7'")
    browser.until("Math.abs(document.querySelector('#attempt-2-turn-7').getBoundingClientRect().top) < innerHeight")
    browser.run("location.hash = '#attempt-4-turn-1'")
    browser.until("document.querySelector('#attempt-4-turn-1')?.open")
    calm(browser)


def test_filters_and_order_work_by_words_and_kind(browser: Browser, tmp_path: Path) -> None:
    report = evaluation()
    opened(browser, evaluation_page([("eval", report)], study(of_evaluation(report).models), {}), tmp_path / "e.html")
    shown = "[...document.querySelectorAll('#rows-1 tr')].filter((each) => !each.hidden).length"
    browser.run(
        "(() => { const k = document.querySelector('#kind-1'); k.value = 'resolved'; k.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    resolved = sum(bool(task["resolved"]) for task in report["tasks"])
    assert (
        browser.run(shown) == resolved
        and browser.run("document.querySelector('#count-1').value") == f"{resolved} of 40"
    )
    browser.run(
        "(() => { const t = document.querySelector('#text-1'); t.value = 'PROGRAM-39'; t.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert browser.run(shown) == 0
    browser.run(
        "document.querySelector('#kind-1').value = ''; document.querySelector('#text-1').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert browser.run(shown) == 1
    cost = "[...document.querySelectorAll('.instances thead button')].find((each) => each.innerText === 'cost')"
    browser.run(f"{cost}.click(); {cost}.click()")
    assert browser.run("document.querySelector('#rows-1 tr').cells[0].innerText") == "program-39"
    assert browser.run("document.querySelector('th[aria-sort]').innerText").startswith("cost")
    assert browser.run("document.querySelectorAll('#charts svg[role=img]').length") >= 2
    calm(browser)


def test_nothing_that_anybody_wrote_is_run(browser: Browser, tmp_path: Path) -> None:
    opened(browser, run_page(played(4, 3, EVIL)), tmp_path / "run.html")
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    browser.until("document.querySelectorAll('details[data-turn]').length > 10")
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    browser.run(
        "document.querySelectorAll('button[data-test]').forEach((each) => { each.click(); document.querySelector('#said').close() })"
    )
    assert (
        browser.run("typeof boom") == "undefined"
        and browser.run("document.querySelectorAll('img, a[href^=javascript]').length") == 0
    )
    assert browser.run("document.body.innerText.includes('<script>boom()</script>')")
    report = evaluation(EVIL)
    for task in report["tasks"]:
        task["id"] += EVIL
        for row in task["report"]["attempts"]:
            row["model"] += EVIL
    opened(browser, evaluation_page([(EVIL, report)], study(of_evaluation(report).models), {}), tmp_path / "e.html")
    assert browser.run("document.querySelectorAll('img, a[href^=javascript]').length") == 0
    calm(browser)


def test_the_policy_stops_a_script_that_got_in_all_the_same(browser: Browser, tmp_path: Path) -> None:
    page = run_page(played(4, 2)).replace(
        "<h1>", "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x'><h1>"
    )
    opened(browser, page, tmp_path / "run.html")
    assert browser.run("document.title") != "owned"
    assert len(browser.problems) >= 2 and all("Content Security Policy" in each for each in browser.problems)


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_a_telephone_and_a_desk(browser: Browser, tmp_path: Path, width: int) -> None:
    long = "a_very_long_name_without_any_room_to_break " + "x" * 300
    opened(browser, run_page(played(8, 3, long)), tmp_path / "run.html", "#attempt-1-turn-2", width=width)
    assert fits(browser)
    report = evaluation(long)
    opened(
        browser,
        evaluation_page([("e", report)], study(of_evaluation(report).models), {}),
        tmp_path / "e.html",
        width=width,
    )
    assert fits(browser)
    calm(browser)


def test_a_run_of_250_attempts_is_there_within_seconds(browser: Browser, tmp_path: Path) -> None:
    opened(browser, run_page(played(250, 50, "many words " * 60)), tmp_path / "run.html", "#attempt-249-turn-50")
    browser.until("document.querySelector('#attempt-249').open && document.querySelector('#attempt-249-turn-50')")
    took = browser.run("performance.getEntriesByType('navigation')[0].domComplete")
    assert took < 10_000
    browser.run(
        "(() => { const t = document.querySelector('#filter-text'); t.value = 'attempt 24'; t.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert browser.run("[...document.querySelectorAll('.attempt')].filter((each) => !each.hidden).length") == 11
    calm(browser)


def test_a_running_run_is_followed_and_what_is_unfolded_stays_so(browser: Browser, tmp_path: Path) -> None:
    events = played(6, 4)
    run = write_run(tmp_path / "runs" / "calc", events[:16])
    with PageServer(tmp_path / "runs") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_port}/")
        browser.run("document.querySelector('#run-rows a').click()")
        browser.until("document.querySelector('#attempt-0')")
        assert "Still at work" in browser.run("document.querySelector('.verdict').innerText")
        browser.run("location.hash = '#attempt-0-turn-1'")
        browser.until("document.querySelector('#attempt-0-turn-1')?.open")
        with (run / "trace.jsonl").open("a") as file:
            file.write("".join(json.dumps(trace.to_json(event)) + "\n" for event in events[16:]))
        browser.until("document.querySelector('.verdict').innerText.includes('Proved')")
        assert browser.run("document.querySelector('#attempt-0-turn-1').open")
        assert browser.run("document.querySelectorAll('.attempt').length") == 6
        calm(browser)
        server.shutdown()
