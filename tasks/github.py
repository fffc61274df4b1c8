"""GitHub by its REST API: an issue as a task (title, body, comments, the repository by its clone URL), and pull
requests.

`GITHUB_TOKEN`, else the token that `gh` keeps, raises the rate limit, opens private issues and pull requests; it goes
to the API's server only and into no message. `GITHUB_API_URL` names an Enterprise server's API (https://HOST/api/v3);
it is then asked for every reference.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from tasks.errors import Explained, InputError, SourceUnavailable
from tasks.say import Say
from tasks.task import Repository, Task

API = "https://api.github.com"
BODY_CHARACTERS = 30_000
COMMENT_CHARACTERS = 8_000
STATEMENT_CHARACTERS = 80_000
COMMENT_PAGES = 10
SECONDS = 20.0
"""Without an answer from the API."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/[A-Za-z0-9._-]+"
_SHORT = re.compile(rf"({_NAME})#([1-9]\d*)")
_PATH = re.compile(rf"/({_NAME})/issues/([1-9]\d*)/?")
_PULL = re.compile(rf"/{_NAME}/pull/\d+.*")
_REMOTE = re.compile(rf"(?:(?:https?|ssh)://)?(?:[^@/]+@)?([^:/@]+)(?::\d+)?[:/]({_NAME})")
_AGREEMENT = re.compile(
    r"(?:\+1|:\+1:|👍|same(?: here| issue| problem)?|me too|bump|any (?:update|news)s?)[\s.!?👍]*", re.I
)
_FORMS = "https://github.com/owner/name/issues/N or owner/name#N"
PAUSES = (0.5, 1.0)
"""Seconds before a second and a third try, after a dropped connection or a server's failure."""
_RETRIED = (500, 502, 503, 504)


def is_issue(reference: str) -> bool:
    """Whether the text is meant as a GitHub issue (it may still be malformed)."""
    return reference.startswith(("https://", "http://")) or _SHORT.fullmatch(reference) is not None


def parse_reference(reference: str) -> tuple[str, int]:
    """The issue that a URL or `owner/name#N` names: ("owner/name", N). Raises InputError for anything else, and for a
    pull request."""
    if match := _SHORT.fullmatch(reference.strip()):
        return match[1], int(match[2])
    parts = urlsplit(reference.strip())
    if parts.scheme in ("https", "http"):
        if _PULL.fullmatch(parts.path):
            raise InputError(f"{reference} is a pull request, not an issue: give the issue that it is about")
        if match := _PATH.fullmatch(parts.path):
            host = parts.hostname or ""
            if not _serves(host) and host not in ("github.com", "www.github.com"):
                use = f"set GITHUB_API_URL=https://{host}/api/v3"
                raise InputError(f"{reference} is on {host}, which is not the GitHub server in use: {use}")
            return match[1], int(match[2])
    raise InputError(f"{reference!r} is no GitHub issue: write {_FORMS}")


def repository_named(remote: str) -> tuple[str, str] | None:
    """What the URL of a git remote names on the server in use: (owner/name, its place in a browser); None for one of
    another server."""
    match = _REMOTE.fullmatch(remote.removesuffix("/").removesuffix(".git"))
    return (match[2], f"https://{match[1]}/{match[2]}") if match and _serves(match[1]) else None


def _serves(host: str) -> bool:
    """Whether the API in use is that of this host."""
    return (urlsplit(_api()).hostname or "") in (host, f"api.{host}")


def signed_in() -> bool:
    """Whether there is a token: GITHUB_TOKEN, or, put in its place for this process, the one that `gh` keeps for the
    server in use."""
    if "GITHUB_TOKEN" not in os.environ:
        command = ["gh", "auth", "token", "--hostname", (urlsplit(_api()).hostname or "").removeprefix("api.")]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
            os.environ["GITHUB_TOKEN"] = told.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return False
    return bool(os.environ["GITHUB_TOKEN"].strip())


def fetch_issue(reference: str, *, base: str | None = None, say: Say = lambda line: None) -> Task:
    """The task that an issue states, on its repository's default branch or on `base`.

    Raises InputError for what the user can put right (reference, missing or private issue, pull request, token) and
    SourceUnavailable for what the world must (rate limit, network)."""
    name, number = parse_reference(reference)
    path = f"/repos/{name}/issues/{number}"
    signed_in()
    with connected() as api:
        repository = api.repository(name)
        found = api.one(path, f"{name} has no issue #{number} that can be seen {_as_whom()}")
        if "pull_request" in found:
            raise InputError(f"{reference} is a pull request, not an issue: give the issue that it is about")
        moved = str(found.get("repository_url") or "")
        if moved and moved.lower() != str(repository.get("url")).lower() and moved.startswith(api.root + "/"):
            repository = api.one(moved.removeprefix(api.root), f"the issue moved to {moved}, which cannot be seen")
        # An issue that moved keeps its comments where it is now.
        now = re.search(rf"/repos/{_NAME}/issues/\d+$", str(found.get("url") or ""))
        comments = list(api.pages(f"{now[0] if now else path}/comments")) if found.get("comments") else []
    if found.get("state") == "closed" and base is None:
        say("the issue is closed, so the default branch may hold its fix: --base REF goes back before it")
    return Task(
        id=re.sub(r"[^A-Za-z0-9._-]", "-", f"{repository['full_name'].replace('/', '__')}-{found['number']}"),
        repository=Repository("url", f"{repository['html_url']}.git", base),
        statement=statement(found, comments),
    )


def statement(issue: dict[str, Any], comments: list[dict[str, Any]]) -> str:
    """The issue in Markdown: title, body, and the comments that say something, each under its author's name."""
    author = _login(issue)
    parts = [f"# {issue['title'].strip()}", _trimmed(issue.get("body"), BODY_CHARACTERS) or "(The issue has no text.)"]
    told = [(c, _trimmed(c.get("body"), COMMENT_CHARACTERS)) for c in comments if not _from_bot(c)]
    told = [(c, text) for c, text in told if text and not _AGREEMENT.fullmatch(text)]
    if told:
        parts.append("## Comments")
    size = sum(map(len, parts))
    for number, (comment, text) in enumerate(told):
        if size + len(text) > STATEMENT_CHARACTERS:
            parts.append(f"(… {len(told) - number} later comments are left out.)")
            break
        date = str(comment.get("created_at"))[:10]
        parts.append(f"**@{_login(comment)}**{_role(comment, author)}, {date}:\n\n{text}")
        size += len(text)
    return "\n\n".join(parts) + "\n"


def _trimmed(text: str | None, limit: int) -> str:
    """Without the comments of issue templates, and cut in the middle beyond the limit."""
    plain = re.sub(r"<!--.*?-->", "", text or "", flags=re.DOTALL).replace("\r\n", "\n").strip()
    plain = re.sub(r"\n{3,}", "\n\n", plain)
    if len(plain) <= limit:
        return plain
    half = limit // 2
    return f"{plain[:half]}\n\n(… {len(plain) - 2 * half} characters are left out …)\n\n{plain[-half:]}"


def _login(entry: dict[str, Any]) -> str:
    return (entry.get("user") or {}).get("login") or "ghost"


def _from_bot(comment: dict[str, Any]) -> bool:
    return (comment.get("user") or {}).get("type") == "Bot" or _login(comment).endswith(("[bot]", "-bot"))


def _role(comment: dict[str, Any], author: str) -> str:
    if _login(comment) == author:
        return " (who reported it)"
    role = str(comment.get("author_association") or "").lower()
    return f" ({role})" if role in ("owner", "member", "collaborator", "contributor") else ""


def _api() -> str:
    return (os.environ.get("GITHUB_API_URL") or API).rstrip("/")


def _as_whom() -> str:
    if os.environ.get("GITHUB_TOKEN"):
        return "with this GITHUB_TOKEN"
    return "without a token (for a private one, set GITHUB_TOKEN)"


@contextmanager
def connected() -> "Iterator[Api]":
    """The API, for as long as the context lasts. Raises InputError for a URL or a token that cannot be one."""
    if urlsplit(_api()).scheme not in ("http", "https"):
        raise InputError(f"GITHUB_API_URL must be a URL such as https://HOST/api/v3, not {_api()!r}")
    with httpx2.Client(headers=_headers(), timeout=SECONDS, follow_redirects=True) as client:
        yield Api(client)


class Api:
    """The REST API over one connection; every failure becomes one sentence."""

    def __init__(self, client: httpx2.Client) -> None:
        self.root = _api()
        self._client = client

    def one(self, path: str, missing: str) -> dict[str, Any]:
        """The JSON object at a path; `missing` is the sentence for one that is not there."""
        return self._object(self._ask("GET", self.root + path, missing))

    def repository(self, name: str) -> dict[str, Any]:
        """What there is to know of a repository, `permissions` of whoever asks included."""
        return self.one(f"/repos/{name}", f"there is no repository {name} on GitHub that can be seen {_as_whom()}")

    def fork(self, name: str) -> dict[str, Any]:
        """The fork that the token's owner has of a repository; where there is none one is begun."""
        return self._object(self._ask("POST", f"{self.root}/repos/{name}/forks", f"{name} cannot be forked", {}))

    def pull(self, name: str, head: str, **fields: Any) -> str:
        """The URL of a pull request from `head` ("owner:branch"): a new one (`fields`: title, body, base, draft), else
        the open one that there is."""
        place, gone = f"{self.root}/repos/{name}/pulls", f"no pull request can be opened in {name} {_as_whom()}"
        found = self._json(self._ask("GET", f"{place}?state=open&head={quote(head)}", gone))
        opened = found[0] if found else self._object(self._ask("POST", place, gone, {"head": head, **fields}))
        return str(opened["html_url"])

    def _object(self, response: httpx2.Response) -> dict[str, Any]:
        found = self._json(response)
        if not isinstance(found, dict):
            raise SourceUnavailable(f"{response.url} is not what GitHub's API sends: check GITHUB_API_URL")
        return found

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """The entries of a paginated list, at most COMMENT_PAGES pages of 100."""
        url = f"{self.root}{path}?per_page=100"
        for _ in range(COMMENT_PAGES):
            response = self._ask("GET", url, f"the comments at {path} are gone")
            yield from self._json(response)
            following = response.links.get("next", {}).get("url")
            if not following or not following.startswith(self.root + "/"):
                return
            url = following

    def _json(self, response: httpx2.Response) -> Any:
        why = f"{response.url} did not answer with JSON (check GITHUB_API_URL)"
        with Explained(why, ValueError, kind=SourceUnavailable):
            return response.json()

    def _ask(self, method: str, url: str, missing: str, body: Any = None) -> httpx2.Response:
        host = urlsplit(url).netloc
        for pause in (*PAUSES, None):
            try:
                response = self._client.request(method, url, json=body)
                if pause is None or response.status_code not in _RETRIED:
                    _check(response, missing)
                    return response
            except httpx2.TimeoutException as error:
                raise SourceUnavailable(f"GitHub ({host}) did not answer within {SECONDS:g} s: try again") from error
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
                if pause is None:
                    raise SourceUnavailable(f"GitHub ({host}) drops the connection: try again later") from error
            except httpx2.HTTPError as error:
                raise SourceUnavailable(f"GitHub ({host}) cannot be reached: {error}; check the network") from error
            time.sleep(pause or 0)
        raise AssertionError("the last try either answers or raises")


def _headers() -> dict[str, str]:
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28", "User-Agent": "troop"}
    if token := os.environ.get("GITHUB_TOKEN", "").strip():
        # Checked here, because the client's own complaint about an illegal header would quote the token.
        if not re.fullmatch(r"[!-~]+", token):
            raise InputError("GITHUB_TOKEN holds characters that no token has: set it again, or unset it")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _check(response: httpx2.Response, missing: str) -> None:
    """Raise what an unsuccessful answer means."""
    status = response.status_code
    if response.is_success:
        return
    if status in (403, 429) and (wait := _rate_limit(response)):
        raise SourceUnavailable(wait)
    if status in (404, 410):
        raise InputError(missing if status == 404 else f"{missing}: it was deleted")
    if status == 401:
        raise InputError("GitHub refuses the token in GITHUB_TOKEN (401): set a valid one, or unset it")
    if status in (403, 422, 451):
        raise InputError(f"GitHub refuses access to {response.url} ({status}): {_message(response)}")
    raise SourceUnavailable(f"GitHub answered {status} for {response.url}: try again later")


def _rate_limit(response: httpx2.Response) -> str:
    """The sentence for a rate limit; empty where this refusal is none."""
    help_ = "" if os.environ.get("GITHUB_TOKEN") else ", or set GITHUB_TOKEN, which raises the limit"
    if response.headers.get("x-ratelimit-remaining") == "0":
        reset = response.headers.get("x-ratelimit-reset", "")
        if not reset.isdigit():
            return f"GitHub's rate limit is used up: try again in an hour{help_}"
        minutes = max(1, round((int(reset) - time.time()) / 60))
        clock = time.strftime("%H:%M", time.localtime(int(reset)))
        return f"GitHub's rate limit is used up until {clock} (in {minutes} min): try again then{help_}"
    after = response.headers.get("retry-after", "")
    if after.isdigit() or response.status_code == 429 or "rate limit" in _message(response).lower():
        when = f"in {after} s" if after.isdigit() else "in a few minutes"
        return f"GitHub asks to slow down: try again {when}{help_}"
    return ""


def _message(response: httpx2.Response) -> str:
    try:
        told = response.json()
        more = [str(each.get("message") or "") for each in told.get("errors", ()) if isinstance(each, dict)]
        return "; ".join(filter(None, (str(told["message"]), *more)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.reason_phrase
