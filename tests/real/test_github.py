"""GitHub issues over real HTTP, from a local server that speaks the API, and the clone over git's own HTTP protocol."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.repository.workspace import open_workspace
from tasks import github as github_issues
from tasks.errors import InputError, SourceUnavailable
from tasks.github import fetch_issue, parse_reference
from tasks.source import resolve
from tests.support.github_server import GitHub, comment, github
from tests.support.repositories import git, make_repository


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """A GitHub with one public repository and one issue, asked without a token."""
    with github() as running:
        monkeypatch.setenv("GITHUB_API_URL", running.api)
        monkeypatch.delenv("GITHUB_TOKEN", raising=False)
        monkeypatch.setattr(github_issues, "PAUSES", (0.01, 0.02))
        running.add_repository("octo/spoon")
        running.add_issue("octo/spoon", 7, title="It bends", body="The spoon bends.\r\n\r\nIt should stay straight.")
        yield running


def refused(kind: type[Exception], reference: str = "octo/spoon#7") -> str:
    with pytest.raises(kind) as error:
        fetch_issue(reference)
    assert "\n" not in str(error.value)
    return str(error.value)


# What comes out


def test_both_ways_to_write_an_issue_give_the_same_task(server: GitHub) -> None:
    short = fetch_issue("octo/spoon#7")
    assert short == fetch_issue("https://github.com/octo/spoon/issues/7")
    assert short == fetch_issue("https://www.github.com/octo/spoon/issues/7/?x=1#issuecomment-5")
    assert short.id == "octo__spoon-7"
    assert short.statement == "# It bends\n\nThe spoon bends.\n\nIt should stay straight.\n"
    assert short.repository.kind == "url"
    assert short.repository.location == f"{server.url}/octo/spoon.git"
    assert short.repository.base is None


def test_the_base_is_kept(server: GitHub) -> None:
    assert fetch_issue("octo/spoon#7", base="v1.0").repository.base == "v1.0"


def test_comments_stand_under_their_authors_and_noise_is_left_out(server: GitHub) -> None:
    said = [
        comment("I see it too, with version 2.", "reporter"),
        comment("The cause is in `bend()`.", "keeper", association="MEMBER"),
        comment("This issue has been marked as stale.", "stale[bot]", "Bot"),
        comment("Coverage went up.", "codecov-bot"),
        comment("+1"),
        comment("<!-- a template -->"),
        {**comment("From a deleted account."), "user": None},
    ]
    server.add_issue("octo/spoon", 8, body="<!-- describe it -->\nIt bends.\n\n\n\nBadly.", comments=said)
    assert fetch_issue("octo/spoon#8").statement == (
        "# It breaks\n\nIt bends.\n\nBadly.\n\n## Comments\n\n"
        "**@reporter** (who reported it), 2024-05-06:\n\nI see it too, with version 2.\n\n"
        "**@keeper** (member), 2024-05-06:\n\nThe cause is in `bend()`.\n\n"
        "**@ghost**, 2024-05-06:\n\nFrom a deleted account.\n"
    )


def test_an_issue_without_a_body_says_so(server: GitHub) -> None:
    server.add_issue("octo/spoon", 9, body=None)
    assert "(The issue has no text.)" in fetch_issue("octo/spoon#9").statement


def test_all_pages_of_comments_are_read_in_order(server: GitHub) -> None:
    server.add_issue("octo/spoon", 10, comments=[f"remark number {n}" for n in range(250)])
    told = re.findall(r"remark number (\d+)", fetch_issue("octo/spoon#10").statement)
    assert [int(n) for n in told] == list(range(250))


def test_long_bodies_and_floods_of_comments_are_cut_and_say_so(server: GitHub) -> None:
    flood = [f"{n} " + "y" * 20_000 for n in range(50)]
    server.add_issue("octo/spoon", 11, body="start " + "x" * 100_000 + " end", comments=flood)
    statement = fetch_issue("octo/spoon#11").statement
    assert len(statement) < github_issues.STATEMENT_CHARACTERS + 2_000
    assert "start x" in statement and "x end" in statement
    assert "characters are left out" in statement
    assert re.search(r"\d+ later comments are left out", statement)


def test_an_issue_of_a_renamed_repository_is_followed(server: GitHub) -> None:
    server.moved["old/name"] = "octo/spoon"
    task = fetch_issue("old/name#7")
    assert task.id == "octo__spoon-7"
    assert task.repository.location == f"{server.url}/octo/spoon.git"


def test_an_issue_that_moved_to_another_repository_brings_that_repository(server: GitHub) -> None:
    server.add_repository("octo/fork")
    there = f"{server.api}/repos/octo/fork"
    server.add_issue("octo/fork", 3, comments=["seen here"])
    server.add_issue("octo/spoon", 12, number=3, comments=["x"], repository_url=there, url=f"{there}/issues/3")
    task = fetch_issue("octo/spoon#12")
    assert task.id == "octo__fork-3"
    assert task.repository.location.endswith("/octo/fork.git")
    assert "seen here" in task.statement


def test_a_closed_issue_is_pointed_out_unless_a_base_is_given(server: GitHub) -> None:
    server.add_issue("octo/spoon", 13, state="closed")
    said: list[str] = []
    fetch_issue("octo/spoon#13", say=said.append)
    assert len(said) == 1 and "--base" in said[0]
    fetch_issue("octo/spoon#13", base="v1", say=said.append)
    assert len(said) == 1


def test_the_command_lines_source_takes_an_issue(server: GitHub) -> None:
    instance = resolve("octo/spoon#7", base="main")
    assert instance.task == fetch_issue("octo/spoon#7", base="main")
    assert instance.grading is None


# The token


def test_the_token_goes_to_the_api_and_opens_private_repositories(
    server: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_repository("octo/secret", private=True)
    server.add_issue("octo/secret", 1)
    monkeypatch.setenv("GITHUB_TOKEN", f" {server.token}\n")
    assert fetch_issue("octo/secret#1").id == "octo__secret-1"
    assert {authorization for _, authorization in server.requests} == {f"Bearer {server.token}"}


def test_the_token_does_not_follow_a_redirect_to_another_host(server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", server.token)
    with github() as other:
        other.add_repository("octo/spoon")
        other.add_issue("octo/spoon", 7)
        server.moved["octo/gone"] = "octo/spoon"
        monkeypatch.setattr(type(server), "api", property(lambda self: f"{other.url}/api/v3"))
        fetch_issue("octo/gone#7")
        assert server.requests and other.requests
        assert {authorization for _, authorization in other.requests} == {""}


def test_a_private_or_missing_repository_hints_at_the_token(server: GitHub) -> None:
    server.add_repository("octo/secret", private=True)
    server.add_issue("octo/secret", 1)
    said = refused(InputError, "octo/secret#1")
    assert "octo/secret" in said and "GITHUB_TOKEN" in said
    assert refused(InputError, "octo/missing#1") == said.replace("secret", "missing")


def test_a_bad_token_is_named_but_not_shown(server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hunter2hunter2")
    said = refused(InputError)
    assert "GITHUB_TOKEN" in said and "401" in said
    assert "hunter2" not in said


def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(
    server: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hunter2\nhunter2")
    said = refused(InputError)
    assert "GITHUB_TOKEN" in said and "hunter2" not in said
    assert server.requests == []


# What goes wrong


def test_a_used_up_rate_limit_says_when_it_ends_and_that_a_token_helps(
    server: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = time.time() + 25 * 60
    server.trouble.rate_limit_reset = reset
    said = refused(SourceUnavailable)
    assert time.strftime("%H:%M", time.localtime(reset)) in said and "in 25 min" in said and "GITHUB_TOKEN" in said
    monkeypatch.setenv("GITHUB_TOKEN", server.token)
    assert "GITHUB_TOKEN" not in refused(SourceUnavailable)


def test_a_request_to_slow_down_is_passed_on(server: GitHub) -> None:
    server.trouble.retry_after = 42
    assert "42 s" in refused(SourceUnavailable)


def test_a_missing_issue_of_a_repository_that_is_there(server: GitHub) -> None:
    assert "octo/spoon has no issue #99" in refused(InputError, "octo/spoon#99")


def test_a_deleted_issue(server: GitHub) -> None:
    server.add_issue("octo/spoon", 14, state="deleted")
    assert "deleted" in refused(InputError, "octo/spoon#14")


def test_a_pull_request_is_not_an_issue(server: GitHub) -> None:
    server.add_issue("octo/spoon", 15, pull_request=True)
    assert "pull request" in refused(InputError, "octo/spoon#15")
    assert "pull request" in refused(InputError, "https://github.com/octo/spoon/pull/15/files")


def test_a_refusal_is_quoted(server: GitHub) -> None:
    server.trouble.forbidden = "Resource protected by organization SAML enforcement."
    assert "SAML" in refused(InputError)


def test_a_dropped_connection_and_a_server_error_are_tried_again(server: GitHub) -> None:
    server.trouble.drops = 1
    server.trouble.server_errors = 1
    assert fetch_issue("octo/spoon#7").id == "octo__spoon-7"


def test_a_server_that_keeps_failing_is_given_up(server: GitHub) -> None:
    server.trouble.drops = 99
    assert "drops the connection" in refused(SourceUnavailable)
    server.trouble.drops = 0
    server.trouble.server_errors = 99
    assert "502" in refused(SourceUnavailable)


def test_a_silent_server_is_given_up_after_the_timeout(server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github_issues, "SECONDS", 0.2)
    server.trouble.delay = 1.0
    start = time.monotonic()
    assert "0.2 s" in refused(SourceUnavailable)
    assert time.monotonic() - start < 0.9


def test_an_answer_that_is_not_the_apis(server: GitHub) -> None:
    server.trouble.not_json = True
    assert "GITHUB_API_URL" in refused(SourceUnavailable)


def test_nobody_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        assert "cannot be reached" in refused(SourceUnavailable)


def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "https://github.invalid/api/v3")
    assert "github.invalid" in refused(SourceUnavailable)


@pytest.mark.parametrize(
    "reference",
    [
        "octo#7",
        "octo/spoon",
        "octo/spoon#0",
        "octo/spoon#x",
        "https://github.com/octo/spoon",
        "ftp://github.com/a/b/issues/1",
    ],
)
def test_a_malformed_reference_is_told_how_to_write_it(reference: str) -> None:
    with pytest.raises(InputError, match="owner/name#N"):
        parse_reference(reference)


def test_a_url_of_another_server_says_how_to_name_its_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_API_URL", raising=False)
    with pytest.raises(InputError, match=re.escape("GITHUB_API_URL=https://git.example.org/api/v3")):
        parse_reference("https://git.example.org/octo/spoon/issues/7")
    monkeypatch.setenv("GITHUB_API_URL", "https://git.example.org/api/v3")
    assert parse_reference("https://git.example.org/octo/spoon/issues/7")[1] == 7
    assert parse_reference("https://github.com/octo/spoon/issues/7")[0] == "octo/spoon"


def test_an_api_url_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "git.example.org")
    assert "GITHUB_API_URL" in refused(InputError)


# The clone


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository with two commits: (its .git, the commits oldest first)."""
    place = tmp_path / "spoon"
    make_repository(place, {"spoon.txt": "straight\n"})
    commits = [git(place, "rev-parse", "HEAD")]
    (place / "spoon.txt").write_text("bent\n")
    git(place, "commit", "-q", "-a", "-m", "bent")
    return place / ".git", [*commits, git(place, "rev-parse", "HEAD")]


def test_the_repository_of_an_issue_is_cloned_over_http_at_its_default_branch_or_base(
    server: GitHub, repository: tuple[Path, list[str]], tmp_path: Path
) -> None:
    git_dir, commits = repository
    server.add_repository("octo/spoon", git_dir)
    newest = open_workspace(fetch_issue("octo/spoon#7").repository, tmp_path / "cache")
    assert (newest.base_commit, newest.read("spoon.txt")) == (commits[1], b"bent\n")
    older = open_workspace(fetch_issue("octo/spoon#7", base=commits[0]).repository, tmp_path / "cache")
    assert (older.base_commit, older.read("spoon.txt")) == (commits[0], b"straight\n")


def test_a_repository_that_cannot_be_cloned_is_one_sentence(server: GitHub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="octo/spoon"):
        open_workspace(fetch_issue("octo/spoon#7").repository, tmp_path / "cache")
