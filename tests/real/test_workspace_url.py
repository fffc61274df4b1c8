"""Opening a repository by URL, over real git servers, and a released package as a repository."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.repository import sources
from harness.repository.workspace import Workspace, open_workspace
from tasks.errors import InputError, SourceUnavailable
from tasks.task import Repository
from tests.support.repositories import git


@contextlib.contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    """A real git server; answers its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The program itself: `git daemon` would be a parent that dies alone.
    program = Path(git(root, "--exec-path")) / "git-daemon"
    arguments = [
        "--reuseaddr",
        "--export-all",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={root}",
        str(root),
    ]
    with subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL) as server:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        try:
            yield f"git://127.0.0.1:{port}"
        finally:
            server.kill()  # git-daemon was seen to sleep through a SIGTERM


class _GitOverHttp(http.server.BaseHTTPRequestHandler):
    """git http-backend behind HTTP, with a token in front if the server asks for one."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, GitHttpServer)
        path, _, query = self.path.partition("?")
        sent = self.headers.get("Authorization", "")
        server.seen.append(sent)
        if server.token and sent != "Basic " + base64.b64encode(f"x-access-token:{server.token}".encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        variables = {
            "GIT_PROJECT_ROOT": str(server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH": os.environ["PATH"],
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class GitHttpServer(http.server.ThreadingHTTPServer):
    root = Path()
    token = ""

    def __init__(self, root: Path, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _GitOverHttp)
        self.root, self.token = root, token
        self.seen: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def git_over_http(root: Path, token: str = "") -> Iterator[GitHttpServer]:
    with GitHttpServer(root, token) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def url(location: str, base: str | None = None) -> Repository:
    return Repository("url", location, base)


class TestUrl:
    def test_cloned_once_and_opened_without_the_server_after(self, origin: Path, store: Path, tmp_path: Path) -> None:
        said: list[str] = []
        first = git(origin, "rev-parse", "v1.0^0")
        with git_daemon(tmp_path) as server:
            workspace = open_workspace(url(f"{server}/origin"), store, say=said.append)
            assert workspace.read("app.py") == b"value = 2\n"
            assert said == [f"cloning {server}/origin"]
        said.clear()
        for base in (first, "v1.0"):
            assert open_workspace(url(f"{server}/origin", base), store, say=said.append).base_commit == first
        assert said == []

    def test_the_default_branch_is_the_newest(self, origin: Path, store: Path) -> None:
        repository = url(origin.as_uri())
        open_workspace(repository, store)
        (origin / "app.py").write_text("value = 3\n")
        git(origin, "commit", "-qam", "three")
        assert open_workspace(repository, store).read("app.py") == b"value = 3\n"
        git(origin, "checkout", "-q", "feature/x")
        assert open_workspace(repository, store).read("app.py") == b"value = 1\n"
        assert open_workspace(url(origin.as_uri(), "trunk"), store).read("app.py") == b"value = 3\n"

    def test_a_missing_ref_is_fetched(self, origin: Path, store: Path) -> None:
        open_workspace(url(origin.as_uri()), store)
        (origin / "app.py").write_text("value = 4\n")
        git(origin, "commit", "-qam", "four")
        git(origin, "tag", "v4")
        assert open_workspace(url(origin.as_uri(), "v4"), store).read("app.py") == b"value = 4\n"

    def test_a_commit_that_no_branch_leads_to_is_asked_for_by_name(self, origin: Path, store: Path) -> None:
        git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
        git(origin, "checkout", "-q", "--detach")
        (origin / "app.py").write_text("value = 5\n")
        git(origin, "commit", "-qam", "five")
        commit = git(origin, "rev-parse", "HEAD")
        git(origin, "update-ref", "refs/pull/1/head", commit)
        git(origin, "checkout", "-q", "trunk")
        for base in (commit, "refs/pull/1/head"):
            assert open_workspace(url(origin.as_uri(), base), store).read("app.py") == b"value = 5\n"

    def test_without_the_network_the_copy_at_hand_is_used_and_said_so(
        self, origin: Path, store: Path, tmp_path: Path
    ) -> None:
        with git_daemon(tmp_path) as server:
            open_workspace(url(f"{server}/origin"), store)
        workspace = open_workspace(url(f"{server}/origin"), store)
        assert workspace.read("app.py") == b"value = 2\n"
        assert "the copy in the cache is used" in workspace.notes[0]

    def test_over_http(self, origin: Path, store: Path, tmp_path: Path) -> None:
        with git_over_http(tmp_path) as server:
            assert open_workspace(url(f"{server.url}/origin/.git"), store).files() == ["app.py", "pkg/mod.py"]

    def test_a_token_opens_a_private_repository_and_stays_out_of_sight(
        self, origin: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the header alone: not in the mirror's files, not in arguments (the wrapper of git writes them down)."""
        token = "ghp_0123456789secret"
        arguments = tmp_path / "arguments"
        tools = tmp_path / "tools"
        tools.mkdir()
        (tools / "git").write_text(f'#!/bin/sh\necho "$@" >> {arguments}\nexec {shutil.which("git")} "$@"\n')
        (tools / "git").chmod(0o755)
        with git_over_http(tmp_path, token) as server:
            location = server.url.replace("http://", f"http://x-access-token:{token}@") + "/origin/.git"
            monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
            said: list[str] = []
            workspace = open_workspace(url(location), store, say=said.append)
            assert workspace.files()
            assert server.seen[-1].startswith("Basic ")
            with pytest.raises(InputError) as missing:
                open_workspace(url(location.replace("origin", "absent")), store)
        assert "fetch" in arguments.read_text()
        for text in (arguments.read_text(), str(missing.value), *said, *workspace.notes):
            assert token not in text
        assert not [p for p in store.rglob("*") if p.is_file() and token.encode() in p.read_bytes()]

    def test_github_gets_the_token_and_nobody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from harness.repository.hostgit import network_environment

        monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
        monkeypatch.setenv("GITHUB_API_URL", "https://github.example.com/api/v3")
        encoded = base64.b64encode(b"x-access-token:ghp_secret").decode()
        for location, sent in (
            ("https://github.com/o/n", True),
            ("https://github.example.com/o/n", True),
            ("https://example.com/o/n", False),
            ("https://github.com.example.com/o/n", False),
            ("http://github.com/o/n", False),
            ("git@github.com:o/n", False),
        ):
            _, variables = network_environment(location)
            assert any(encoded in value for value in variables.values()) is sent, location
            assert variables["GIT_TERMINAL_PROMPT"] == "0"

    def test_errors_are_one_clear_sentence(self, origin: Path, store: Path, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q", "--bare", "empty.git")
        with (
            git_over_http(tmp_path, "some-token") as private,
            git_over_http(tmp_path) as public,
            git_daemon(tmp_path) as daemon,
        ):
            refused: tuple[tuple[str, str | None, str], ...] = (
                (f"{private.url}/origin/.git", None, "refuses access"),
                (f"{public.url}/absent/.git", None, "there is no git repository at"),
                (f"{daemon}/absent", None, "there is no git repository at"),
                ((tmp_path / "absent").as_uri(), None, "there is no git repository at"),
                (f"{daemon}/empty.git", None, "has no commits yet"),
                (f"{daemon}/origin", "nonsense", "no branch, tag or commit 'nonsense'"),
                (f"{daemon}/origin", "1" * 40, "no branch, tag or commit '1111"),
                ("ext::sh -c true", None, "cannot be cloned"),
                ("--upload-pack=touch /tmp/x", None, "not the URL of a git repository"),
            )
            for location, base, said in refused:
                with pytest.raises(InputError, match=said) as caught:
                    open_workspace(url(location, base), store)
                assert "\n" not in str(caught.value)

    def test_a_dead_server_is_no_input_error(self, store: Path) -> None:
        for location in ("http://127.0.0.1:9/o/n", "git://127.0.0.1:9/o/n", "https://host.invalid/o/n"):
            with pytest.raises(SourceUnavailable, match="network") as caught:
                open_workspace(url(location), store)
            assert "\n" not in str(caught.value)
        assert not list((store / "mirrors").glob("*.git"))

    def test_many_at_once_clone_once(self, origin: Path, store: Path) -> None:
        said: list[str] = []
        opened: list[Workspace] = []
        threads = [
            threading.Thread(target=lambda: opened.append(open_workspace(url(origin.as_uri()), store, say=said.append)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({w.base_commit for w in opened}) == 1
        assert len(opened) == 6
        assert [line for line in said if line.startswith("cloning")] == [f"cloning {origin.as_uri()}"]


class TestPackage:
    def test_a_release_is_one_commit_with_always_the_same_id(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The unpacking itself is tested with tasks.package; here a directory stands in for what it yields."""

        def unpack(location: str, directory: Path, *, cache: Path, say: object) -> str:
            directory.mkdir(parents=True)
            (directory / ".gitignore").write_text("*.txt\n")
            (directory / ".gitattributes").write_text("* text=auto eol=lf\n")
            (directory / "windows.txt").write_bytes(b"a\r\nb\r\n")
            (directory / "run.sh").write_text("echo\n")
            (directory / "run.sh").chmod(0o755)
            for path in directory.iterdir():
                os.utime(path, (1_600_000_000, 1_600_000_000))
            return "demo-1.0.tar.gz from the package index"

        monkeypatch.setattr(sources, "unpack", unpack)
        package = Repository("package", "demo==1.0")
        workspace = open_workspace(package, store)
        assert workspace.files() == [".gitattributes", ".gitignore", "run.sh", "windows.txt"]
        assert workspace.read("windows.txt") == b"a\r\nb\r\n"
        assert workspace.date.timestamp() == 1_600_000_000
        assert workspace.notes == ("demo-1.0.tar.gz from the package index",)
        assert open_workspace(package, tmp_path / "another cache").base_commit == workspace.base_commit
        monkeypatch.setattr(sources, "unpack", None)
        assert open_workspace(package, store).base_commit == workspace.base_commit

    @pytest.mark.network
    def test_a_real_release_can_be_opened(self, store: Path) -> None:
        workspace = open_workspace(Repository("package", "iniconfig==2.0.0"), store)
        assert "src/iniconfig/__init__.py" in workspace.files()
        assert workspace.date.year >= 2020
        assert "iniconfig-2.0.0" in workspace.notes[0]
