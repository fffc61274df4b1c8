"""Released packages, from a local package index over real HTTP (and from the configured one, where there is a
network)."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.repository.workspace import open_workspace
from tasks import package
from tasks.errors import InputError, SourceUnavailable
from tasks.package import choose, parse_requirement, unpack
from tasks.package_index import Release
from tasks.task import Repository
from tests.support.small_disk import small_disk

TREE = {"spoon-1.2.3/PKG-INFO": "Name: spoon\n", "spoon-1.2.3/spoon.py": "bent = True\n"}


@dataclass
class PackageIndex:
    """Files by name, served under a Simple API in one of its two forms. `requests`: paths asked for."""

    url: str = ""
    form: str = "json"
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    status: int = 200
    requests: list[str] = field(default_factory=list)

    def add(self, filename: str, content: bytes) -> None:
        self.files[filename] = content
        self.hashes[filename] = hashlib.sha256(content).hexdigest()

    def page(self) -> tuple[str, str]:
        """(content type, text) of the project's page."""
        if self.form == "json":
            files: list[dict[str, Any]] = [
                {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": self.hashes[name]}}
                for name in self.files
            ]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files, "name": "spoon"})
        anchors = [f'<a href="/files/{n}#sha256={self.hashes[n]}">{n}</a><br/>' for n in self.files]
        return "text/html", f"<!DOCTYPE html><html><body>{''.join(anchors)}</body></html>"


@contextmanager
def serving(index: PackageIndex) -> Iterator[PackageIndex]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Tests want no log on the console."""

        def do_GET(self) -> None:
            index.requests.append(self.path)
            kind, body = "application/octet-stream", index.files.get(self.path.rpartition("/")[2])
            if self.path == "/simple/spoon/":
                kind, text = index.page()
                body = text.encode()
            self.send_response(index.status if body is not None else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """An index with spoon 1.2.3, the only one that pip is configured for."""
    with serving(PackageIndex()) as running:
        only(running.url, monkeypatch)
        running.add("spoon-1.2.3.tar.gz", tarball(TREE))
        yield running


def only(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", url)


def tarball(tree: dict[str, str], *odd: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in tree.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for entry in odd:
            tar.addfile(entry)
    return out.getvalue()


def files(directory: Path) -> dict[str, str]:
    return {p.relative_to(directory).as_posix(): p.read_text() for p in sorted(directory.rglob("*")) if p.is_file()}


# What comes out


@pytest.mark.parametrize("form", ["json", "html"])
def test_the_source_distribution_is_unpacked_without_its_top_directory(
    index: PackageIndex, tmp_path: Path, form: str
) -> None:
    index.form = form
    note = unpack("Spoon == 1.2.3", tmp_path / "tree")
    assert files(tmp_path / "tree") == {"PKG-INFO": "Name: spoon\n", "spoon.py": "bent = True\n"}
    assert "spoon-1.2.3.tar.gz" in note and index.hashes["spoon-1.2.3.tar.gz"] in note
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tree"]


def test_nothing_of_the_package_is_executed(index: PackageIndex, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w').close()\n"
    names = ("setup.py", "conftest.py", "backend.py", "sitecustomize.py")
    tree = {f"spoon-1.2.4/{name}": code for name in names}
    tree["spoon-1.2.4/pyproject.toml"] = (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    index.add("spoon-1.2.4.tar.gz", tarball(tree))
    unpack("spoon==1.2.4", tmp_path / "tree")
    assert (tmp_path / "tree" / "setup.py").read_text() == code
    assert not mark.exists()


def test_the_cache_answers_the_second_time(index: PackageIndex, tmp_path: Path) -> None:
    first = unpack("spoon==1.2.3", tmp_path / "a", cache=tmp_path / "cache")
    asked = len(index.requests)
    assert unpack("spoon==1.2.3", tmp_path / "b", cache=tmp_path / "cache") == first
    assert len(index.requests) == asked
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_damaged_file_in_the_cache_is_fetched_again(index: PackageIndex, tmp_path: Path) -> None:
    unpack("spoon==1.2.3", tmp_path / "a", cache=tmp_path / "cache")
    (archive,) = (tmp_path / "cache").rglob("*.tar.gz")
    archive.write_bytes(b"damaged")
    unpack("spoon==1.2.3", tmp_path / "b", cache=tmp_path / "cache")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_zip_and_an_archive_without_a_top_directory(index: PackageIndex, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, text in TREE.items():
            packed.writestr(name, text)
    index.add("spoon-0.1.zip", out.getvalue())
    index.add("spoon-0.2.tar.gz", tarball({"setup.py": "", "spoon.py": "x"}))
    unpack("spoon==0.1", tmp_path / "zip")
    unpack("spoon==0.2", tmp_path / "flat")
    assert set(files(tmp_path / "zip")) == {"PKG-INFO", "spoon.py"}
    assert set(files(tmp_path / "flat")) == {"setup.py", "spoon.py"}


def test_links_within_the_package_are_kept_and_of_modes_only_who_may_execute(
    index: PackageIndex, tmp_path: Path
) -> None:
    program = tarfile.TarInfo("spoon-4/program")
    program.mode = 0o6777
    odd = (link("spoon-4/d/up", "../a"), link("spoon-4/same", "spoon-4/a", tarfile.LNKTYPE), program)
    index.add("spoon-4.tar.gz", tarball({"spoon-4/a": "text", "spoon-4/d/b": "x"}, *odd))
    unpack("spoon==4", tmp_path / "tree")
    assert (tmp_path / "tree/d/up").readlink() == Path("../a")
    assert (tmp_path / "tree/same").read_text() == "text"
    modes = {name: (tmp_path / "tree" / name).stat().st_mode & 0o7777 for name in ("a", "program")}
    assert modes == {"a": 0o644, "program": 0o755}


def test_a_git_directory_in_the_archive_is_dropped(index: PackageIndex, tmp_path: Path) -> None:
    index.add("spoon-3.tar.gz", tarball({"spoon-3/.git/hooks/post-checkout": "x", "spoon-3/spoon.py": "x"}))
    unpack("spoon==3", tmp_path / "tree")
    assert set(files(tmp_path / "tree")) == {"spoon.py"}


def test_an_extra_index_and_one_on_disk_are_asked_too(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tarball({"spoon-9/spoon.py": "nine"})
    disk = tmp_path / "disk index"
    (disk / "spoon").mkdir(parents=True)
    (disk / "spoon" / "spoon-9.tar.gz").write_bytes(content)
    (disk / "spoon" / "index.html").write_text(
        f'<a href="spoon-9.tar.gz#sha256={hashlib.sha256(content).hexdigest()}">spoon-9.tar.gz</a>'
    )
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", disk.as_uri())
    unpack("spoon==9", tmp_path / "tree")
    assert files(tmp_path / "tree") == {"spoon.py": "nine"}


def test_pips_configuration_file_is_followed(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.url}/\n")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    unpack("spoon==1.2.3", tmp_path / "tree")
    assert index.requests


def test_without_a_configured_index_pips_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.package_index import Index

    only("", monkeypatch)
    code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Index.of_pip().urls == (theirs.rstrip("/"),)


def test_a_released_package_becomes_a_workspace(index: PackageIndex, tmp_path: Path) -> None:
    repository = Repository("package", "spoon==1.2.3")
    workspace = open_workspace(repository, tmp_path / "cache")
    assert workspace.files() == ["PKG-INFO", "spoon.py"]
    assert workspace.read("spoon.py") == b"bent = True\n"
    assert open_workspace(repository, tmp_path / "other").base_commit == workspace.base_commit


# What goes wrong


def refused(kind: type[Exception], requirement: str, directory: Path, **options: Any) -> str:
    with pytest.raises(kind) as error:
        unpack(requirement, directory / "tree", **options)
    assert not (directory / "tree").exists()
    return str(error.value)


def test_an_unknown_package_and_an_unknown_version_are_named(index: PackageIndex, tmp_path: Path) -> None:
    for version in ("1.2.2", "1.3", "0.9", "2.0rc1"):
        index.add(f"spoon-{version}.tar.gz", b"")
    assert "'fork'" in refused(InputError, "fork==1", tmp_path)
    said = refused(InputError, "spoon==1.2.4", tmp_path)
    assert "spoon==1.2.4" in said
    assert said.endswith("1.3, 1.2.3, 2.0rc1, 1.2.2, 0.9")


def test_a_release_with_wheels_only_is_told_apart(index: PackageIndex, tmp_path: Path) -> None:
    index.add("spoon-5.0-py3-none-any.whl", b"")
    assert "without a source distribution" in refused(InputError, "spoon==5.0", tmp_path)


def test_a_disk_that_is_full_is_not_taken_for_a_broken_archive(index: PackageIndex, tmp_path: Path) -> None:
    index.add("spoon-4.tar.gz", tarball({"spoon-4/a": "text" * 500_000}))
    with small_disk(tmp_path, 4) as disk:
        disk.fill(1 << 20)
        with pytest.raises(OSError, match="No space left"):
            unpack("spoon==4", disk.place / "tree", cache=disk.place / "cache")


def test_a_file_that_is_not_the_one_the_index_names_is_refused(index: PackageIndex, tmp_path: Path) -> None:
    index.files["spoon-1.2.3.tar.gz"] = tarball({"spoon-1.2.3/evil.py": "x"})
    assert "sha256" in refused(SourceUnavailable, "spoon==1.2.3", tmp_path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.tar.gz"))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    "archive",
    [
        tarball({"../evil.py": "x"}),
        tarball({"spoon-6/a": "x"}, link("spoon-6/passwords", "/etc/passwd")),
        tarball({"spoon-6/a": "x"}, link("spoon-6/up", "../../..")),
        tarball({"spoon-6/a": "x"}, link("spoon-6/beside", "../other")),
        tarball({"spoon-6/d/a": "x"}, link("spoon-6/d/x", ".."), link("spoon-6/d/y", "x/..")),
        tarball({"/tmp/evil.py": "x"}),
        tarball({"spoon-6/a": "x"}, link("spoon-6/hard", "../../etc/passwd", tarfile.LNKTYPE)),
        tarball({"spoon-6/a": "x"}, link("spoon-6/device", "", tarfile.CHRTYPE)),
        tarball({"spoon-6/a": "x"}, link("spoon-6/pipe", "", tarfile.FIFOTYPE)),
        tarball({"spoon-6/a": "x"})[:-40],
        b"not an archive",
    ],
    ids=[
        "path upwards",
        "link to an absolute path",
        "link upwards",
        "link out of the top directory",
        "link that leads out by way of another",
        "absolute path",
        "hard link to a file outside",
        "device",
        "pipe",
        "broken off",
        "no archive",
    ],
)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(index: PackageIndex, tmp_path: Path, archive: bytes) -> None:
    index.add("spoon-6.tar.gz", archive)
    assert "spoon-6.tar.gz" in refused(InputError, "spoon==6", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_zip_that_leads_out_is_refused(index: PackageIndex, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("../../evil.py", "x")
    index.add("spoon-6.zip", out.getvalue())
    assert "leads out" in refused(InputError, "spoon==6", tmp_path)


def test_archives_that_unpack_to_too_much_are_refused(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "UNPACKED_BYTES", 1_000_000)
    index.add("spoon-7.tar.gz", tarball({"spoon-7/zeros": "0" * 2_000_000}))
    assert "more than" in refused(InputError, "spoon==7", tmp_path)
    monkeypatch.setattr(package, "ARCHIVE_BYTES", 100)
    assert "larger than" in refused(InputError, "spoon==1.2.3", tmp_path)


def test_an_index_that_fails_or_is_not_there(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.status = 503
    assert "503" in refused(SourceUnavailable, "spoon==1.2.3", tmp_path)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://user:hunter2@127.0.0.1:{held.getsockname()[1]}/simple")
        said = refused(SourceUnavailable, "spoon==1.2.3", tmp_path)
    assert "cannot be reached" in said and "hunter2" not in said


def test_a_certificate_bundle_that_is_not_there_is_named(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "missing.pem"))
    assert "missing.pem" in refused(InputError, "spoon==1.2.3", tmp_path)


def test_a_directory_with_something_in_it_is_left_alone(index: PackageIndex, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        unpack("spoon==1.2.3", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "requirement", ["spoon", "spoon>=1", "spoon==1.*", "spoon[x]==1", "==1", "spoon==1; x", "a/b==1"]
)
def test_only_an_exact_version_is_a_requirement(requirement: str) -> None:
    with pytest.raises(InputError, match="name==version"):
        parse_requirement(requirement)


def test_versions_are_compared_as_versions() -> None:
    offered = [Release(f"my_spoon-{v}.tar.gz", "u", "") for v in ("1.0", "1.0rc1", "1.10", "2.0.post1")]
    assert choose("my-spoon", "1.0.0", offered).filename == "my_spoon-1.0.tar.gz"
    assert choose("my-spoon", "1.0-RC1", offered).filename == "my_spoon-1.0rc1.tar.gz"
    assert choose("my-spoon", "v1.10", offered).filename == "my_spoon-1.10.tar.gz"
    with pytest.raises(InputError):
        choose("my-spoon", "1.1", offered)
    with pytest.raises(InputError):
        choose("spoon", "1.0", offered)


# The real thing


@pytest.mark.network
def test_a_real_release_comes_from_the_configured_index(tmp_path: Path) -> None:
    unpack("inflection==0.3.1", tmp_path / "tree")
    assert (tmp_path / "tree" / "inflection.py").is_file()
    assert (tmp_path / "tree" / "PKG-INFO").is_file()
