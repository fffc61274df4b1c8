"""A small GitHub over real HTTP: the parts of its REST API that Troop asks, and git itself by `git http-backend`, which
takes a push from whoever has the token and may push to that repository.

    with github() as server:
        server.add_repository("owner/name", git_dir)
        server.add_issue("owner/name", 7, title="…", body="…", comments=["…"])
        monkeypatch.setenv("GITHUB_API_URL", server.api)

A test breaks it on purpose through `server.trouble`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PER_PAGE = 100


@dataclass
class Trouble:
    """What goes wrong. `drops`, `server_errors`: for that many requests to come. `delay`: seconds before each
    answer."""

    drops: int = 0
    server_errors: int = 0
    delay: float = 0.0
    rate_limit_reset: float | None = None
    retry_after: int | None = None
    forbidden: str = ""
    not_json: bool = False
    refuse_pushes: bool = False


@dataclass
class GitHub:
    """The server's content. `token`: the one it knows; anything else in an Authorization header is refused with 401."""

    url: str = ""
    token: str = "a-good-token"
    trouble: Trouble = field(default_factory=Trouble)
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    issues: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    comments: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    git_dirs: dict[str, Path] = field(default_factory=dict)
    read_only: set[str] = field(default_factory=set)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    """What was asked for by every pull request that was opened, and `html_url`."""
    forks_late: int = 0
    """Requests of git for which a new fork is not there yet."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(path with query, Authorization header or "") of every API request."""

    @property
    def api(self) -> str:
        return f"{self.url}/api/v3"

    def add_repository(self, name: str, git_dir: Path | None = None, *, private: bool = False) -> None:
        """A repository; `git_dir` (bare, or a working tree's .git) is what it gives to clone."""
        self.repositories[name] = {
            "full_name": name,
            "private": private,
            "url": f"{self.api}/repos/{name}",
            "html_url": f"{self.url}/{name}",
            "default_branch": "main",
        }
        if git_dir is not None:
            self.git_dirs[name] = git_dir

    def add_issue(self, name: str, number: int, /, **fields: Any) -> None:
        """An issue; `comments`: texts, or whole comment objects; `pull_request=True` makes it a pull request."""
        comments = fields.pop("comments", [])
        issue = {
            "number": number,
            "title": "It breaks",
            "body": "It should not.",
            "state": "open",
            "user": {"login": "reporter", "type": "User"},
            "url": f"{self.api}/repos/{name}/issues/{number}",
            "repository_url": f"{self.api}/repos/{name}",
            "comments": len(comments),
            **fields,
        }
        if fields.get("pull_request"):
            issue["pull_request"] = {"url": f"{self.api}/repos/{name}/pulls/{number}"}
        self.issues[name, number] = issue
        self.comments[name, number] = [c if isinstance(c, dict) else comment(c) for c in comments]


def comment(body: str, login: str = "someone", kind: str = "User", association: str = "NONE") -> dict[str, Any]:
    """A comment as the API gives it."""
    return {
        "body": body,
        "user": {"login": login, "type": kind},
        "author_association": association,
        "created_at": "2024-05-06T07:08:09Z",
    }


@contextmanager
def github() -> Iterator[GitHub]:
    """A GitHub on a thread, on a free port of the loopback interface."""
    content = GitHub()

    class Handler(_Handler):
        github = content

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    content.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield content
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    github: GitHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests want no log on the console."""

    def handle(self) -> None:
        # A client that gives up (a timeout under test) leaves nobody to answer to.
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/v3/"):
            self.github.requests.append((self.path, self.headers.get("Authorization", "")))
            self._api(path.removeprefix("/api/v3/"))
        else:
            self._git(path)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if not path.startswith("/api/v3/"):
            return self._git(path)
        self.github.requests.append((self.path, self.headers.get("Authorization", "")))
        fields = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.headers.get("Authorization") != f"Bearer {self.github.token}":
            return self._answer(401, {"message": "Bad credentials"})
        if self.github.trouble.forbidden:
            return self._answer(403, {"message": self.github.trouble.forbidden})
        _, owner, name, what = path.removeprefix("/api/v3/").split("/")
        self._fork(f"{owner}/{name}") if what == "forks" else self._pull(f"{owner}/{name}", fields)

    def _fork(self, name: str) -> None:
        fork = f"me/{name.partition('/')[2]}"
        if fork not in self.github.repositories:
            origin = self.github.git_dirs[name]
            place = origin.with_name(f"fork-of-{name.replace('/', '-')}.git")
            subprocess.run(["git", "clone", "-q", "--bare", str(origin), str(place)], check=True)
            self.github.add_repository(fork, place)
        self._answer(202, self.github.repositories[fork])

    def _pull(self, name: str, fields: dict[str, Any]) -> None:
        owner, _, branch = fields["head"].partition(":")
        git_dir = self.github.git_dirs[f"{owner}/{name.partition('/')[2]}"]
        known = subprocess.run(["git", "-C", str(git_dir), "rev-parse", "--verify", "-q", f"refs/heads/{branch}"])
        if known.returncode or fields["draft"] is None:
            told = {"message": "Validation Failed", "errors": [{"field": "head", "message": "head is not there"}]}
            return self._answer(422, told)
        number = 100 + len(self.github.pulls)
        self.github.pulls.append({**fields, "html_url": f"{self.github.url}/{name}/pull/{number}"})
        self._answer(201, self.github.pulls[-1])

    # The REST API

    def _api(self, path: str) -> None:
        trouble = self.github.trouble
        time.sleep(trouble.delay)
        if trouble.drops > 0:
            trouble.drops -= 1
            self.close_connection = True
            return
        if trouble.server_errors > 0:
            trouble.server_errors -= 1
            return self._answer(502, {"message": "Server Error"})
        if trouble.rate_limit_reset is not None:
            limit = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(trouble.rate_limit_reset))}
            return self._answer(403, {"message": "API rate limit exceeded for 192.0.2.1."}, limit)
        if trouble.retry_after is not None:
            return self._answer(429, {"message": "Slow down"}, {"retry-after": str(trouble.retry_after)})
        if trouble.forbidden:
            return self._answer(403, {"message": trouble.forbidden})
        if trouble.not_json:
            return self._send(200, b"<html>a captive portal</html>", {"Content-Type": "text/html"})
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.github.token}"):
            return self._answer(401, {"message": "Bad credentials"})
        self._content(path.split("/"), known=authorization is not None)

    def _content(self, parts: list[str], *, known: bool) -> None:
        name = "/".join(parts[1:3])
        if name in self.github.moved:
            target = "/".join([self.github.api, "repos", self.github.moved[name], *parts[3:]])
            return self._answer(301, {"message": "Moved Permanently", "url": target}, {"Location": target})
        repository = self.github.repositories.get(name)
        if parts[0] != "repos" or repository is None or (repository["private"] and not known):
            return self._answer(404, {"message": "Not Found"})
        if len(parts) == 3:
            push = name not in self.github.read_only
            return self._answer(200, {**repository, **({"permissions": {"push": push}} if known else {})})
        if parts[3] == "pulls":
            (head,) = parse_qs(urlsplit(self.path).query)["head"]
            return self._answer(200, [pull for pull in self.github.pulls if pull["head"] == head])
        if parts[3] in ("branches", "git"):
            ref = f"refs/heads/{'/'.join(parts[4:])}" if parts[3] == "branches" else f"{parts[5]}^{{commit}}"
            asked = ["git", "-C", str(self.github.git_dirs[name]), "rev-parse", "--verify", "-q", unquote(ref)]
            if subprocess.run(asked, capture_output=True).returncode:
                return self._answer(404, {"message": "Not Found"})
            return self._answer(200, {"name": "/".join(parts[4:])})
        issue = self.github.issues.get((name, int(parts[4])))
        if issue is None:
            return self._answer(404, {"message": "Not Found"})
        if issue["state"] == "deleted":
            return self._answer(410, {"message": "This issue was deleted"})
        if parts[5:] == ["comments"]:
            return self._comments(self.github.comments[name, int(parts[4])])
        self._answer(200, issue)

    def _comments(self, comments: list[dict[str, Any]]) -> None:
        query = parse_qs(urlsplit(self.path).query)
        size = min(PER_PAGE, int(query.get("per_page", ["30"])[0]))
        page = int(query.get("page", ["1"])[0])
        links = {}
        if page * size < len(comments):
            following = f"{self.github.url}{urlsplit(self.path).path}?per_page={size}&page={page + 1}"
            links = {"Link": f'<{following}>; rel="next"'}
        self._answer(200, comments[(page - 1) * size : page * size], links)

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    # git

    def _git(self, path: str) -> None:
        name, _, rest = path.lstrip("/").partition(".git/")
        git_dir = self.github.git_dirs.get(name)
        if git_dir is None:
            return self._send(404, b"not found", {"Content-Type": "text/plain"})
        if name.startswith("me/") and self.github.forks_late > 0:
            self.github.forks_late -= 1
            return self._send(404, b"not found", {"Content-Type": "text/plain"})
        credentials = base64.b64encode(f"x-access-token:{self.github.token}".encode()).decode()
        pushes = "git-receive-pack" in self.path
        if pushes and self.headers.get("Authorization") != f"Basic {credentials}":
            return self._send(401, b"who are you?", {"WWW-Authenticate": "Basic realm=GitHub"})
        if pushes and (name in self.github.read_only or self.github.trouble.refuse_pushes):
            return self._send(403, b"write access not granted", {"Content-Type": "text/plain"})
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(git_dir.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PATH_INFO": f"/{git_dir.name}/{rest}",
            "QUERY_STRING": urlsplit(self.path).query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            **({"REMOTE_USER": "me"} if pushes else {}),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        self._send(status, content, headers)
