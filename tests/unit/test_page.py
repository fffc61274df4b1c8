"""The pages: what they hold, that nothing in them is obeyed, how large they get, and what traces of old give."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path

import pytest

from agent.commands.view_command import PageServer
from harness import trace
from harness.records import Json
from harness.scaling.imported import of_evaluation
from harness.scaling.study import study
from harness.suites.page import evaluation_page, kind_of
from harness.views.page import ROOM, run_markdown, run_page
from tests.support.command_line import troop
from tests.support.played import evaluation, played, write_run

EVIL = '<script>boom()</script></script><!--<img src=x onerror=boom()>"\'><a href="javascript:boom()">x</a>\u202e\x1b[2J\udcff&lt;'
OLD = Path(__file__).parents[1] / "data" / "run-schema-1"


class Tags(HTMLParser):
    """What a browser takes for markup: tags with attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in self.texts:
            self.texts[self._within].append(data)


def inert(page: str) -> None:
    """Assert that nothing in the page but its own script is ever run, and nothing is fetched."""
    page.encode("utf-8")
    assert not re.search("[\u202e\x1b]", page)
    found = Tags(page)
    assert len(found.texts["script"]) == 2 and len(found.texts["style"]) == 1
    assert "boom()" in found.texts["script"][0] and "<" not in found.texts["script"][0]
    assert "boom" not in found.texts["script"][1] + found.texts["style"][0]
    for tag, attributes in found.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "link")
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", f"{tag} {name}"
            if name in ("href", "src", "action"):
                assert value is not None and not re.match(r"\s*(javascript|data|https?):", value), value
    policy = next(each["content"] for tag, each in found.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe" not in policy


def data_of(page: str) -> Json:
    return dict(json.loads(Tags(page).texts["script"][0]))


# What anybody wrote is shown and never run


def test_script_in_any_field_of_a_run_stays_text() -> None:
    page = run_page(played(4, 2, EVIL))
    inert(page)
    assert "&lt;script&gt;boom()" in page
    inert(run_page(played(4, 2, EVIL), only=3))


def test_script_in_any_string_of_a_trace_stays_text() -> None:
    names = {"kind", "id", "outcome", "key", "candidate", "status"}

    def planted(value: object, name: str = "") -> object:
        if isinstance(value, str):
            return value if name in names else value + EVIL
        if isinstance(value, list):
            return [planted(each, name) for each in value]
        return {k: planted(v, k) for k, v in value.items()} if isinstance(value, dict) else value

    events = [
        trace.from_json({**{k: planted(v, k) for k, v in trace.to_json(e).items()}, **_names(e)})
        for e in played(4, 2, EVIL)
    ]
    inert(run_page(events))


def _names(event: trace.Event) -> Json:
    """What must stay a name for the trace to hold together."""
    keep = (
        "kind",
        "at",
        "attempt",
        "candidate",
        "finalists",
        "selection",
        "evidence",
        "report",
        "baseline",
        "charge",
        "calls",
    )
    return {name: value for name, value in trace.to_json(event).items() if name in keep}


def test_script_in_an_evaluation_stays_text() -> None:
    report = evaluation(EVIL)
    report["tasks"][0]["id"] = EVIL
    report["models"] = [EVIL]
    for row in (each for task in report["tasks"] for each in task["report"]["attempts"]):
        row["model"] += EVIL
    page = evaluation_page([(EVIL, report)], study(of_evaluation(report).models), {})
    inert(page)


def test_markdown_of_a_run_has_no_mark_of_others() -> None:
    said = run_markdown(played(4, 2, "[x](javascript:boom) ![i](http://evil) <b> | @team #1 `code`\n\n# title"))
    plain = said[: said.index("<pre")] + said[said.index("</pre>") :]
    assert not re.search(r"\]\(|<b>|@team|(?<!&)#1|\n# title|`", plain)
    assert "**Proved by a failing test that passes now" in said and "return sum(values) / len(values)" in said
    assert re.search(r"\| \*\*c1\*\* \| 0, 2 \|", said) and "$0.0" in said.replace("&#36;", "$")


def test_a_patch_ends_no_block_of_markdown() -> None:
    events = [
        trace.from_json({**trace.to_json(e), "patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+```</pre></details>\n"})
        if isinstance(e, trace.AttemptEnded)
        else e
        for e in played(4, 2)
    ]
    said = run_markdown(events)
    assert said.count("</pre>") == 1 and said.count("</details>") == 1


# What a page holds


def test_the_page_of_a_run_has_its_parts_and_what_unfolds() -> None:
    page = run_page(played(6, 3))
    for part in (
        "The mean is wrong",
        "Proved by a failing test",
        "The patch",
        "Candidates",
        "Evidence",
        "Ledger",
        "The judge",
    ):
        assert part in page
    data = data_of(page)
    assert list(data["attempts"]) == [str(n) for n in range(6)]
    kinds = [item[0] for item in data["attempts"]["2"]]
    assert kinds[:3] == ["attempt-started", "planned", "decided"] and "attempt-ended" in kinds and "selected" in kinds
    assert data["said"]["c2"]["1:tests/test_So be it..py"] == "E  So be it."
    assert data["texts"] == {"1:tests/test_So be it..py": "def test(): So be it."}
    found = Tags(page).tags
    marks = [each for tag, each in found if tag == "button" and "data-test" in each]
    assert len(marks) == 3 * 4, "three tests, on the base and on each of three candidates"
    assert all(each.get("aria-label") for each in marks)
    assert all("scope" in each for tag, each in found if tag == "th")
    ids = [each["id"] for _, each in found if "id" in each]
    assert len(ids) == len(set(ids)), "each place has a name of its own"
    links = [str(each["href"]) for tag, each in found if tag == "a"]
    assert links and all(link[1:] in ids for link in links if link.startswith("#"))


def test_every_prefix_of_a_trace_gives_a_page() -> None:
    events = played(4, 2)
    for length in range(1, len(events) + 1):
        run_page(events[:length])


def test_a_trace_of_old_gives_a_page_and_markdown() -> None:
    events = list(trace.read(OLD / "trace.jsonl"))
    assert data_of(run_page(events))["attempts"] and run_markdown(events).startswith("## ")


@pytest.mark.slow
def test_a_run_of_250_attempts_stays_below_three_megabytes() -> None:
    events = played(250, 50, "many words " * 60)
    page = run_page(events)
    assert len(page.encode()) < 3_000_000
    data = data_of(page)
    assert len(data["attempts"]) == 250 and any(item[0] == "tests-ran" for item in data["attempts"]["249"])
    assert "Long texts are cut here" in page
    alone = data_of(run_page(events, only=7))
    assert list(alone["attempts"]) == ["7"] and "many words " * 60 in json.dumps(alone)


def test_texts_are_cut_only_as_far_as_the_page_needs_it() -> None:
    small, large = (run_page(played(count, 5, "w" * 3000)) for count in (4, 60))
    assert "Long texts are cut" not in small and "w" * 3000 in small
    assert "characters left out" in large and len(large) < ROOM * 1.3


def test_an_evaluation_has_a_row_for_each_instance_and_its_kind() -> None:
    report = evaluation()
    page = evaluation_page(
        [("eval", report)], study(of_evaluation(report).models), {"eval/program-01": "x/program-01.html"}
    )
    rows = [each for tag, each in Tags(page).tags if tag == "tr" and "data-kind" in each]
    assert [each["data-kind"] for each in rows] == [kind_of(task) for task in report["tasks"]]
    assert len({each["data-kind"] for each in rows}) == 6
    assert '<a href="x/program-01.html">program-01</a>' in page and len(page) < 200_000
    assert [curve["measure"] for curve in data_of(page)["study"]["curves"]].count("coverage") == 2


# The server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    write_run(tmp_path / "runs" / "calc", played(4, 2))
    (tmp_path / "runs" / "secret.txt").write_text("secret")
    (tmp_path / "outside").mkdir()
    write_run(tmp_path / "outside" / "run", played(4, 2))
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "outside" / "run")
    served = PageServer(tmp_path / "runs")
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def asked(server: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": f"127.0.0.1:{server.server_port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


def test_the_server_lists_runs_and_serves_their_pages(server: PageServer) -> None:
    status, page, headers = asked(server, "/")
    assert status == 200 and '<a href="/calc">The mean is wrong' in page and "secret" not in page
    assert (
        headers["x-content-type-options"] == "nosniff"
        and "frame-ancestors 'none'" in headers["content-security-policy"]
    )
    status, page, headers = asked(server, "/calc")
    assert status == 200 and "connect-src &#39;self&#39;" in page and "The judge" in page
    assert asked(server, "/calc", **{"If-None-Match": headers["etag"]})[:2] == (304, "")
    assert asked(server, "/calc", "HEAD")[:2] == (200, "")
    assert 'data-attempt="2"' in asked(server, "/calc?attempt=2")[1]


def test_a_run_that_grows_gets_another_tag(server: PageServer) -> None:
    _, _, headers = asked(server, "/calc")
    with (server.root / "calc" / "trace.jsonl").open("a") as file:
        file.write(json.dumps(trace.to_json(trace.RunResumed(at=2000.0))) + "\n")
    status, page, again = asked(server, "/calc", **{"If-None-Match": headers["etag"]})
    assert status == 200 and again["etag"] != headers["etag"] and 'class="verdict busy"' in page


@pytest.mark.parametrize(
    "path", ["/../outside/run", "/%2e%2e/outside/run", "/linked", "/secret.txt", "/none", "/calc/../..", "/%00"]
)
def test_the_server_serves_nothing_but_runs_of_its_directory(server: PageServer, path: str) -> None:
    status, page, _ = asked(server, path)
    assert status in (404, 200) and "secret" not in page
    assert status == 404 or "calc-1" not in page, "at most the list"


def test_the_server_hears_nobody_who_calls_it_by_another_name_and_changes_nothing(server: PageServer) -> None:
    assert asked(server, "/", Host="evil.example")[0] == 403
    assert asked(server, "/", Host=f"evil.example:{server.server_port}")[0] == 403
    assert asked(server, "/", "POST")[0] == 501 and asked(server, "/", "DELETE")[0] == 501
    assert server.server_address[0] == "127.0.0.1"


def test_a_damaged_run_is_told_and_harms_no_other(server: PageServer) -> None:
    (server.root / "bad").mkdir()
    (server.root / "bad" / "trace.jsonl").write_text("<script>boom()</script>\n")
    status, page, _ = asked(server, "/bad")
    assert status == 500 and "<script>" not in page
    status, page, _ = asked(server, "/")
    assert status == 200 and "damaged" in page and "The mean is wrong" in page


def test_one_run_is_served_alone(tmp_path: Path) -> None:
    served = PageServer(write_run(tmp_path / "calc", played(4, 2)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    assert "The judge" in asked(served, "/")[1] and "All runs" not in asked(served, "/")[1]
    assert 'href="/">The whole run' in asked(served, "/?attempt=1")[1]
    served.shutdown()
    served.server_close()


# The commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two runs; the latest is that of three candidates."""
    made = tmp_path_factory.mktemp("place")
    write_run(made / "runs" / "old", played(1, 1))
    write_run(made / "runs" / "new", played(4, 2))
    (made / "runs" / "eval-x").mkdir()
    (made / "runs" / "eval-x" / "report.json").write_text(json.dumps(evaluation()))
    (made / "runs" / "eval-x" / "eval.json").write_text('{"suite": "quixbugs"}')
    return made


def test_runs_are_listed_with_title_verdict_cost_and_age(place: Path) -> None:
    rows = json.loads(troop("runs", "--json", cwd=place).stdout)
    assert {row["name"] for row in rows} == {"old", "new", "eval-x"}
    new = next(row for row in rows if row["name"] == "new")
    assert new["title"] == "The mean is wrong So be it." and new["verdict"].startswith("proved") and new["usd"] > 0
    shown = troop("runs", cwd=place).stdout
    assert "evaluation of quixbugs" in shown and "$0.0" in shown
    assert troop("runs", "nowhere", cwd=place).returncode == 2


def test_the_name_of_a_run_is_told_whole_however_long(tmp_path: Path) -> None:
    name = "humanize-intcomma-zero-digits-20261127-043355-a885"
    write_run(tmp_path / "runs" / name, played(1, 1))
    first, second = troop("runs", cwd=tmp_path).stdout.splitlines()[:2]
    assert first == name and " ago · $" in second


def test_without_a_run_the_latest_is_taken_and_named(place: Path) -> None:
    for command in (["replay"], ["show"], ["diff"], ["report", "--json", "runs/new"]):
        done = troop(*command, cwd=place)
        assert done.returncode == 0, done.stderr
        assert command[0] == "report" or "the latest run, runs/new" in done.stderr
    assert "there is no run in runs yet: name a run" in troop("replay", cwd=place / "runs").stderr


def test_show_prints_any_candidate_as_it_is(place: Path) -> None:
    assert "max(1, len(values))" in troop("show", "c2", cwd=place).stdout
    chosen = troop("show", "runs/new", cwd=place).stdout
    assert chosen.startswith("diff --git") and "+    return sum(values) / len(values)\n" in chosen
    refused = troop("show", "c9", cwd=place)
    assert refused.returncode == 2 and "new has c1, c2, c3" in refused.stderr


def test_diff_shows_two_candidates_and_what_differs(place: Path) -> None:
    told = json.loads(troop("diff", "c1", "c3", "--json", cwd=place).stdout)
    assert list(told["candidates"]) == ["c1", "c3"]
    what = {row["what"]: (row["first"], row["second"]) for row in told["differing"]}
    assert what["regression tests/test_core.py::test_7"] == ("passed", "failed: So be it.")
    assert len(what) == 3
    shown = troop("diff", cwd=place, COLUMNS="100").stdout
    assert "c1 (attempt 0, 2)" in shown and "c2 (attempt 1)" in shown
    assert "a run of one" not in shown and troop("diff", "runs/old", cwd=place).returncode == 2


def test_what_the_issues_code_does_differently_is_told(tmp_path: Path) -> None:
    from harness.choosing.found import digest
    from tests.support.played import DIFF, OTHER

    probed = [
        trace.Probed(patch=digest(patch), shown={"p0": [{"out": "1"}, {"out": out}]})
        for patch, out in ((DIFF, "2"), (OTHER, "3"))
    ]
    sources = trace.Probed(patch="", shown={}, sources={"p0": ["import x", "x.mean()"]})
    write_run(tmp_path / "runs" / "calc", [*played(4, 2), sources, *probed])
    told = json.loads(troop("diff", "c1", "c2", "--json", cwd=tmp_path).stdout)
    assert {"what": "the issue's code: x.mean()", "first": "2", "second": "3"} in told["differing"]


def test_report_writes_a_page_and_those_of_its_attempts_beside_it(place: Path) -> None:
    done = troop("report", "runs/new", "--html", "out/a b.html", "--outputs", cwd=place)
    assert done.returncode == 0 and "wrote out/a b.html and 4 pages" in done.stderr, done.stderr
    assert data_of((place / "out" / "a b.html").read_text())["whole"] == "a%20b-outputs/attempt-{}.html"
    assert 'href="../a%20b.html"' in (place / "out" / "a b-outputs" / "attempt-3.html").read_text()
    assert troop("report", "runs/new", "runs/old", "--html", "x.html", cwd=place).returncode == 2
    assert troop("report", "runs/eval-x", "--html", "e.html", cwd=place).returncode == 0
    assert "What to buy" in (place / "e.html").read_text()
    assert troop("report", "runs/new", "--markdown", cwd=place).stdout.startswith("## The mean is wrong")
    refused = troop("report", "runs/new", "--html", "/proc/x.html", cwd=place)
    assert refused.returncode in (2, 4) and len(refused.stderr.splitlines()) == 1
