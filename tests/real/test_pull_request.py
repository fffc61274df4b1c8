"""From the patch of a run to a pull request: pushed by git over HTTP, opened through the API, both of a local server."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.calculator import SOLVING, STATEMENT, make_repository
from tests.support.command_line import TROOP, troop
from tests.support.github_server import GitHub, github
from tests.support.model_server import serving
from tests.support.repositories import git

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]
OPTIONS = ("--sandbox", "bubblewrap", "--allow-unknown-price", "-n", "1", "--test-command", "python -m pytest -q")
BRANCH = "troop/7-total-1-2-gives-2-where-3-is-expected-the-first"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """A GitHub with one repository, one issue, and a token in the environment that opens it."""
    origin = make_repository(tmp_path / "origin")
    git(tmp_path, "clone", "-q", "--bare", str(origin), "spoon.git")
    with github() as running:
        running.add_repository("octo/spoon", tmp_path / "spoon.git")
        running.add_issue("octo/spoon", 7, title=STATEMENT.strip(), body="It is wrong, @everybody.")
        monkeypatch.setenv("GITHUB_API_URL", running.api)
        monkeypatch.setenv("GITHUB_TOKEN", running.token)
        yield running


@pytest.fixture
def checkout(server: GitHub, tmp_path: Path) -> Path:
    """A clone of it."""
    git(tmp_path, "clone", "-q", f"{server.url}/octo/spoon.git", "mine")
    return tmp_path / "mine"


def solved(source: object, tmp_path: Path, *more: object) -> subprocess.CompletedProcess[str]:
    with serving(SOLVING) as model:
        arguments = (source, "--model", f"{model.url}#scripted", "--out", tmp_path / "runs", *OPTIONS, *more)
        return troop("solve", *arguments, cwd=tmp_path)


def run_of(tmp_path: Path) -> Path:
    (run,) = (tmp_path / "runs").glob("octo__spoon-7-*")
    return run


def test_an_issue_of_a_checkout_becomes_a_draft_whose_text_says_why(
    server: GitHub, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, arguments = tmp_path / "tools", tmp_path / "arguments"
    tools.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (tools / "git").write_text(f'#!/bin/sh\necho "$@" >> {arguments}\nexec {real} "$@"\n')
    (tools / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (checkout / ".git/hooks/pre-push").write_text("#!/bin/sh\nexit 1\n")
    (checkout / ".git/hooks/pre-push").chmod(0o755)

    done = solved(checkout, tmp_path, "--issue", "octo/spoon#7", "--pr", "--tell-cost")

    assert done.returncode == 0, done.stderr
    (pull,) = server.pulls
    assert pull["html_url"] in done.stdout
    assert pull["draft"] is True and pull["base"] == "main" and pull["head"] == f"octo:{BRANCH}"
    assert pull["title"] == "total([1, 2]) gives 2 where 3 is expected: the first value is left out."
    body = pull["body"]
    assert "calc&#46;py" in body or "calc.py" in body
    for told in ("passes 1 test written for the issue", "python &#45;m pytest &#45;q", "cost&#58;", "Fixes #7\n"):
        assert told in body, told
    assert "everybody" not in body
    assert "scripted with Troop" in body and "127" not in body, "where a model is served is nobody's business"
    pushed = git(tmp_path / "spoon.git", "rev-parse", BRANCH)
    assert pushed == git(checkout, "rev-parse", BRANCH)
    assert "for value in values:" in git(tmp_path / "spoon.git", "show", f"{BRANCH}:calc.py")
    written = b"".join(path.read_bytes() for path in run_of(tmp_path).rglob("*") if path.is_file())
    for place in (arguments.read_bytes(), written, done.stdout.encode(), done.stderr.encode()):
        assert server.token.encode() not in place

    again = troop("show", run_of(tmp_path), "--pr")
    assert again.returncode == 0 and pull["html_url"] in again.stdout and len(server.pulls) == 1


def test_where_pushing_is_refused_a_fork_takes_it_and_ready_is_no_draft(server: GitHub, tmp_path: Path) -> None:
    server.read_only.add("octo/spoon")
    server.forks_late = 2
    done = solved("octo/spoon#7", tmp_path, "--pr", "--ready", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    (pull,) = server.pulls
    assert json.loads(done.stdout)["pull_request"] == pull["html_url"]
    assert pull["head"] == f"me:{BRANCH}" and pull["draft"] is False and "cost&#58;" not in pull["body"]
    assert "troop" not in git(tmp_path / "spoon.git", "branch", "--list")
    assert "for value in values:" in git(tmp_path / "fork-of-octo-spoon.git", "show", f"{BRANCH}:calc.py")


def test_without_a_token_what_is_printed_pushes_the_branch(
    server: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    done = solved("octo/spoon#7", tmp_path, "--pr")
    assert done.returncode == 2 and "GITHUB_TOKEN is not set" in done.stderr
    assert "verdict" not in done.stderr and "values[1:]" in done.stdout, "the result is there all the same"
    assert server.pulls == [] and f"https://127.0.0.1/octo/spoon/compare/{BRANCH}?expand=1" in done.stderr
    command = next(line for line in done.stderr.splitlines() if line.startswith("  git "))
    credentials = server.url.replace("//", f"//x-access-token:{server.token}@")
    own = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{credentials}/.insteadOf",
        "GIT_CONFIG_VALUE_0": server.url + "/",
    }
    subprocess.run(shlex.split(command), check=True, env={**os.environ, **own})
    assert "for value in values:" in git(tmp_path / "spoon.git", "show", f"{BRANCH}:calc.py")
    assert "Fixes #7" in (run_of(tmp_path) / "pull-request.md").read_text()


def test_the_login_of_gh_reads_the_issue_and_opens_the_pull_request(
    server: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho {server.token}\n')
    (tmp_path / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("GITHUB_TOKEN")
    server.repositories["octo/spoon"]["private"] = True
    done = solved("octo/spoon#7", tmp_path, "--pr")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text() == "auth token --hostname 127.0.0.1\n"
    assert len(server.pulls) == 1
    assert server.token not in (run_of(tmp_path) / "trace.jsonl").read_text()


def test_what_the_server_refuses_is_one_sentence_after_the_result(
    server: GitHub, checkout: Path, tmp_path: Path
) -> None:
    server.trouble.refuse_pushes = True
    done = solved(checkout, tmp_path, "--issue", "octo/spoon#7", "--pr")
    assert done.returncode == 2 and "values[1:]" in done.stdout
    assert "cannot be pushed" in done.stderr and "403" in done.stderr and "Traceback" not in done.stderr
    run = run_of(tmp_path)

    server.trouble.refuse_pushes = False
    git(tmp_path / "spoon.git", "branch", BRANCH)  # somebody else's, of the same name
    done = troop("show", run, "--pr")
    assert done.returncode == 0, done.stderr
    assert server.pulls[0]["head"] == f"octo:{BRANCH}-2"

    (checkout / "unfinished.py").write_text("x = 1\n")
    git(checkout, "add", "unfinished.py")
    git(checkout, "commit", "-qm", "not for others yet")
    done = solved(checkout, tmp_path, "--issue-text", STATEMENT, "--pr")
    assert done.returncode == 2 and "the commit before the patch: push it" in done.stderr and len(server.pulls) == 1
    assert "unfinished" not in git(tmp_path / "spoon.git", "log", "--all", "--format=%s", "--name-only")

    server.trouble.forbidden = "Resource not accessible by personal access token"
    done = troop("show", run, "--pr")
    assert done.returncode == 2 and "Resource not accessible" in done.stderr


def at_a_terminal(run: Path, answer: bytes | int) -> tuple[int, str]:
    """`troop show RUN --pr` with a terminal to answer at: by bytes, or by a signal at the question."""
    leader, follower = os.openpty()
    asked = subprocess.Popen(
        [*TROOP, "show", str(run), "--pr"],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert asked.stderr is not None
    said = b""
    while b"[y/n]" not in said:
        byte = os.read(asked.stderr.fileno(), 1)
        assert byte, said
        said += byte
    if isinstance(answer, bytes):
        os.write(leader, answer)
    else:
        asked.send_signal(answer)
    out, error = asked.communicate(timeout=60)
    os.close(leader)
    os.close(follower)
    return asked.returncode, (out + said + error).decode()


def test_on_a_terminal_it_asks_first(server: GitHub, checkout: Path, tmp_path: Path) -> None:
    assert solved(checkout, tmp_path, "--issue", "octo/spoon#7").returncode == 0
    run = run_of(tmp_path)
    for answer, code in ((b"n\n", 0), (b"\n", 0), (signal.SIGINT, 130)):
        ended, said = at_a_terminal(run, answer)
        assert ended == code and "nothing was pushed; later: troop show" in " ".join(said.split())
        assert f"Push {BRANCH} to octo/spoon" in " ".join(said.split())
        assert "troop" not in git(tmp_path / "spoon.git", "branch", "--list")
    assert at_a_terminal(run, b"y\n")[0] == 0 and len(server.pulls) == 1


def test_a_wish_that_cannot_come_true_is_refused_before_anything_starts(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "remote", "set-url", "origin", "git@elsewhere.example.org:octo/spoon.git")
    done = solved(checkout, tmp_path, "--issue-text", "x", "--pr")
    assert done.returncode == 2 and "has no remote there" in done.stderr and not (tmp_path / "runs").exists()
    done = solved(checkout, tmp_path, "--issue-text", "x", "--ready")
    assert done.returncode == 2 and "go with --pr" in done.stderr
