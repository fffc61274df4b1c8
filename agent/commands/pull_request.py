"""`--pr`: the patch of a finished run as a pull request on GitHub, after a question where somebody can answer it."""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.prompt import Confirm
from rich.text import Text
from tenacity import Retrying, retry_if_exception_message, stop_after_attempt, wait_exponential

from agent.run_files import RunFiles
from agent.secrets import mask
from harness import trace
from harness.cache import write_text
from harness.repository.apply import commit_message, push_branch
from harness.repository.hostgit import GitFailed, git, lines
from harness.views.page import pull_request_body
from tasks.errors import InputError
from tasks.github import connected, repository_named, signed_in
from tasks.task import Task


def target_of(task: Task) -> tuple[str, str, str]:
    """Where a pull request for the task goes: (owner/name, its place in a browser, the git remote), of several remotes
    that of the issue, else "origin". Raises InputError where none is on the GitHub server in use."""
    where = task.repository
    remotes = {where.location: where.location} if where.kind == "url" else {}
    if where.kind == "path":
        try:
            told = lines(git("config", "--get-regexp", r"^remote\..*\.url$", cwd=Path(where.location)))
        except GitFailed:
            told = []
        remotes = {key[len("remote.") : -len(".url")]: url for key, url in (line.split(" ", 1) for line in told)}
    named = {remote: found for remote, url in remotes.items() if (found := repository_named(url))}
    if not named:
        without = f"{mask(where.location)} has no remote there (GITHUB_API_URL names the API of another server)"
        raise InputError(f"--pr needs a repository on GitHub, and {without}")
    own = next((remote for remote, (name, _) in named.items() if task.is_of(name)), "origin")
    remote = own if own in named else next(iter(named))
    return (*named[remote], remote)


def open_pull(
    files: RunFiles, candidate: str, commit: str, place: Path, branch: str, known: argparse.Namespace, console: Console
) -> str | None:
    """The URL of the pull request with a candidate's `branch`, made on `commit` in the git repository at `place`; None
    where it was not wanted after all. Raises InputError and SourceUnavailable, with what to type instead where there is
    no token."""
    (task, _, _), events = files.read_run(), list(trace.read(files.trace_file))
    name, web, remote = target_of(task)
    title = mask(commit_message(task.title, [], "").partition("\n")[0])
    fixes = task.number if task.is_of(name) else ""
    body = mask(pull_request_body(events, candidate, fixes=fixes, cost=known.tell_cost))
    text = files.directory / "pull-request.md"
    write_text(text, body)
    if not signed_in():
        push = shlex.join(("git", "-C", str(place), "push", remote, branch))
        raise InputError(
            "no pull request was opened: GITHUB_TOKEN is not set, and `gh` is not logged in. To open it by hand:\n"
            f"  {push}\n  {web}/compare/{branch}?expand=1\nIts text is in {text}"
        )
    with connected() as api:
        there = api.repository(name)
        name, onto = there["full_name"], there["default_branch"]
        lacks = f"{name} lacks {commit[:12]}, the commit before the patch: push it"
        api.one(f"/repos/{name}/git/commits/{commit}", lacks)
        with contextlib.suppress(InputError):  # a tag or a commit is no branch
            onto = api.one(f"/repos/{name}/branches/{quote(task.repository.base or onto)}", "")["name"]
        forking = not (there.get("permissions") or {}).get("push", True)
        to = f"a fork of {name}, where you may not push," if forking else name
        what = f"Push {branch} to {to} and open a {'' if known.ready else 'draft '}pull request onto {onto}, “{title}”?"
        later = f"nothing was pushed; later: troop show {files.directory} {candidate} --pr"
        try:
            if sys.stdin.isatty() and not Confirm.ask(Text(what), console=console, default=False):
                console.print(later, markup=False, soft_wrap=True)
                return None
        except (EOFError, KeyboardInterrupt):
            raise KeyboardInterrupt(later) from None
        holder = api.fork(name) if forking else there
        # A fork takes its time to be there.
        absent, pauses = retry_if_exception_message(match="(?is).*not found"), wait_exponential(max=8)
        pushing = Retrying(retry=absent, stop=stop_after_attempt(5 if forking else 1), wait=pauses, reraise=True)
        head = pushing(push_branch, place, branch, f"{holder['html_url']}.git")
        source = f"{holder['full_name'].partition('/')[0]}:{head}"
        return api.pull(name, source, title=title, body=body, base=onto, draft=not known.ready)
