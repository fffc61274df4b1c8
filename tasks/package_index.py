"""What the package index offers: the Simple API (PEP 503 HTML, PEP 691 JSON) of the index that pip is configured for.

Nothing here executes a package's code: `pip download` builds metadata of source distributions, so only pip's
configuration is read. No index has its name written here; without a configured one pip says what its default is.
"""

import configparser
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from tasks.errors import Explained, InputError, SourceUnavailable

if TYPE_CHECKING:
    import httpx2

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
_PAGE_LIMIT = 100_000_000
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, slots=True)
class Release:
    """One file that the index offers. `sha256` is empty where the index names no such hash."""

    filename: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Index:
    """Where packages come from. `urls`: Simple API roots, in pip's order; `cert`: CA bundle; `proxy`: as pip has it."""

    urls: tuple[str, ...]
    cert: str | None = None
    proxy: str | None = None
    trusted: tuple[str, ...] = ()

    @classmethod
    def of_pip(cls) -> "Index":
        """The index that pip would use here. Raises SourceUnavailable where none is configured and pip is missing."""
        options = pip_options([])
        first = options.get("index-url") or _pip_default()
        extra = tuple(options.get("extra-index-url", "").split())
        return cls(
            urls=tuple(url.rstrip("/") for url in (first, *extra)),
            cert=next(filter(None, (options.get("cert"), *map(os.environ.get, _BUNDLES))), None),
            proxy=options.get("proxy"),
            trusted=tuple(options.get("trusted-host", "").split()),
        )

    def releases(self, name: str) -> list[Release]:
        """Every file of the project, over all roots. Raises InputError for an unknown project, SourceUnavailable."""
        pages = [page for root in self.urls if (page := self._page(root, name)) is not None]
        if not pages:
            raise InputError(f"the package index has no project {name!r} (asked: {', '.join(map(shown, self.urls))})")
        return [release for page in pages for release in page]

    def _page(self, root: str, name: str) -> list[Release] | None:
        url = f"{root}/{name}/"
        if root.startswith("file:"):
            return _local_page(url)
        with self.get(url, accept=_ACCEPT, known=(200, 404)) as response:
            if response.status_code == 404:
                return None
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _PAGE_LIMIT:
                    raise SourceUnavailable(f"the package index's page {shown(url)} is larger than {_PAGE_LIMIT} bytes")
            base = str(response.url)
            if "json" in response.headers.get("content-type", ""):
                return _from_json(body, base)
            return _from_html(body.decode("utf-8", "replace"), base)

    @contextmanager
    def get(
        self, url: str, *, accept: str = "*/*", encoding: str = "gzip, identity", known: Sequence[int] = (200,)
    ) -> "Iterator[httpx2.Response]":
        """A streamed GET with pip's certificates and proxy; a status that is not `known`, and the network's failures,
        become SourceUnavailable."""
        import httpx2

        verify: bool | ssl.SSLContext = urlsplit(url).hostname not in self.trusted
        if verify and self.cert:
            with Explained(f"pip's CA bundle {self.cert} cannot be read", OSError):
                verify = certificates(self.cert)
        why = f"the package index cannot be reached at {shown(url)}"
        with (
            Explained(why, httpx2.HTTPError, httpx2.InvalidURL, kind=SourceUnavailable),
            httpx2.Client(verify=verify, proxy=self.proxy, timeout=30.0, follow_redirects=True) as client,
            client.stream("GET", url, headers={"Accept": accept, "Accept-Encoding": encoding}) as response,
        ):
            if response.status_code not in known:
                raise SourceUnavailable(f"the package index answered {response.status_code} for {shown(url)}")
            yield response


def shown(url: str) -> str:
    """The URL without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def pip_options(notes: list[str]) -> dict[str, str]:
    """pip's configuration by option name, later sources winning as in pip itself: files from the system's to the
    user's, then variables. A file that cannot be read is left out and named in `notes`."""
    options: dict[str, str] = {}
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, PermissionError):
            notes.append(f"{path} cannot be read as a pip configuration and is left out")
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                options.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for name, given in os.environ.items():
        if name.startswith("PIP_") and given:
            options[name[4:].lower().replace("_", "-")] = given
    return options


def _pip_files() -> list[Path]:
    home = Path(os.environ.get("HOME", "/nonexistent"))
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = [Path(p) / "pip/pip.conf" for p in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if p]
    own = [home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*shared, Path("/etc/pip.conf"), *own, *([Path(named)] if named else [])]


def _pip_default() -> str:
    """The index that the first Python with a pip has built in: this one, else the ones on the PATH."""
    for python in filter(None, (sys.executable, shutil.which("python3"), "/usr/bin/python3")):
        try:
            done = subprocess.run([python, "-I", "-c", _DEFAULT_INDEX], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return done.stdout.strip()
    raise SourceUnavailable("no package index is known: set PIP_INDEX_URL, or install pip, which knows one")


def certificates(bundle: str) -> ssl.SSLContext:
    """What a bundle of certificates says is to be trusted: a file, or a directory of files. Raises OSError."""
    directory = Path(bundle).is_dir()
    return ssl.create_default_context(cafile=None if directory else bundle, capath=bundle if directory else None)


def _from_json(body: bytes, base: str) -> list[Release]:
    why = f"the package index sent what is no Simple API page at {shown(base)}"
    with Explained(why, ValueError, KeyError, TypeError, AttributeError, kind=SourceUnavailable):
        files: list[Mapping[str, Any]] = json.loads(body)["files"]
        hashes = [file.get("hashes", {}).get("sha256", "") for file in files]
        return [Release(f["filename"], urljoin(base, f["url"]), sha) for f, sha in zip(files, hashes, strict=True)]


def _from_html(text: str, base: str) -> list[Release]:
    anchors = _Anchors(base)
    anchors.feed(text)
    return anchors.releases


def _local_page(url: str) -> list[Release] | None:
    """The page of a project in an index that is a directory tree."""
    page = Path(unquote(urlsplit(url).path)) / "index.html"
    with Explained(f"the package index at {page} cannot be read", OSError, kind=SourceUnavailable):
        return _from_html(page.read_text("utf-8"), url) if page.exists() else None


class _Anchors(HTMLParser):
    """The files that the links of a page name."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base, self.releases = base, list[Release]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (href := dict(attrs).get("href")):
            url, fragment = urldefrag(urljoin(self.base, href))
            kind, _, digest = fragment.partition("=")
            filename = unquote(urlsplit(url).path.rpartition("/")[2])
            self.releases.append(Release(filename, url, digest.lower() if kind == "sha256" else ""))


def normalised(name: str) -> str:
    """The project name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
