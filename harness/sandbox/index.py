"""Where set-up gets packages from: the package index settings of this machine, for a sandbox with the network.

Read from pip's and uv's own environment variables and files, and handed on as PIP_* and UV_* variables. A sandbox gets
no secret: a URL with a password in it is left out, with a note that says so.
"""

import itertools
import os
import re
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.package_index import pip_options

_BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_TRUE = ("1", "true", "yes", "on")
_HREF = re.compile(r"""href\s*=\s*["']([^"'#]+)""", re.IGNORECASE)
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz")
# How many pages of an index in a folder are looked at to find out where its files lie.
_PAGES = 20
_finding_uv = threading.Lock()


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """`env`: variables for pip, uv and what they start. `folders`, `files`: local paths that these name, to be shown
    read-only at the same place; never a home, or what homes lie in. `certificates`: the CA bundle, among `files`, or
    None for the system's. `notes`: what was left out, for a person."""

    env: Mapping[str, str]
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    certificates: Path | None = None
    notes: tuple[str, ...] = ()


def index_settings() -> IndexSettings:
    """The settings of the user who runs the harness. Unreadable files count as absent, and are named in `notes`."""
    notes: list[str] = []
    pip = pip_options(notes)
    main, extra, links = _uv_indexes(notes)
    main = _safe(main + pip.get("index-url", "").split(), notes)
    extra = _safe(pip.get("extra-index-url", "").split() + extra, notes)
    links = _safe(pip.get("find-links", "").split() + links, notes)
    env = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}
    if main:
        env |= {"PIP_INDEX_URL": main[0], "UV_DEFAULT_INDEX": main[0]}
    if extra:
        # pip treats all indexes alike; without this uv would look no further than the first that knows a name.
        env |= {"PIP_EXTRA_INDEX_URL": " ".join(extra), "UV_INDEX": " ".join(extra)}
        env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links:
        env |= {"PIP_FIND_LINKS": " ".join(links), "UV_FIND_LINKS": ",".join(links)}
    if trusted := " ".join(pip.get("trusted-host", "").split()):
        env |= {"PIP_TRUSTED_HOST": trusted, "UV_INSECURE_HOST": trusted}
    if pip.get("no-index", "").lower() in _TRUE:
        env |= {"PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}
    if seconds := pip.get("timeout") or pip.get("default-timeout"):
        env |= {"PIP_DEFAULT_TIMEOUT": seconds, "UV_HTTP_TIMEOUT": seconds}
    for name in _PROXIES:
        for spelling in (name, name.upper()):
            if value := _safe([os.environ.get(spelling, "")], notes):
                env[spelling] = value[0]
    bundles = (pip.get("cert"), *(os.environ.get(name, "") for name in _BUNDLES))
    bundle = next((Path(p) for p in bundles if p and os.access(p, os.R_OK)), None)
    if bundle is not None:
        env |= dict.fromkeys((*_BUNDLES, "GIT_SSL_CAINFO"), str(bundle))
        env["UV_SYSTEM_CERTS"] = "1"
    folders, files = _local([*main, *extra, *links], notes)
    files += () if bundle is None else (bundle,)
    return IndexSettings(env, folders, files, bundle, tuple(dict.fromkeys(notes)))


def _uv_indexes(notes: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(indexes instead of the public one, of which the first counts; further ones; pages and folders of archives)."""
    main, extra, links = list[str](), list[str](), list[str]()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", "/nonexistent")) / ".config")
    for path in (config / "uv/uv.toml", Path("/etc/uv/uv.toml")):
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            notes.append(f"{path} cannot be read as a uv configuration and is left out of set-up")
            continue
        for part in (table, table.get("pip", {})):
            main += [part["index-url"]] if "index-url" in part else []
            extra += part.get("extra-index-url", [])
            links += part.get("find-links", [])
        for index in table.get("index", []):
            (main if index.get("default") else extra).append(index.get("url", ""))
    main[:0] = [*_unnamed("UV_INDEX_URL"), *_unnamed("UV_DEFAULT_INDEX")]
    extra += [*_unnamed("UV_INDEX"), *_unnamed("UV_EXTRA_INDEX_URL")]
    links += os.environ.get("UV_FIND_LINKS", "").replace(",", " ").split()
    return main, extra, links


def _unnamed(variable: str) -> list[str]:
    """The indexes in a variable; uv lets one be called `name=url`."""
    return [re.sub(r"^[A-Za-z0-9._-]+=", "", url) for url in os.environ.get(variable, "").split()]


def _safe(urls: Iterable[str], notes: list[str]) -> list[str]:
    """Without doubles and without those that hold a password or a token."""
    kept: list[str] = []
    for url in urls:
        parts = urlsplit(url if "://" in url or url.startswith("/") else f"//{url}")
        if parts.username or parts.password:
            what = f"the index or proxy at {parts.hostname}"
            notes.append(f"{what} needs a password and is left out: set-up gets no secrets")
        elif url and url not in kept:
            kept.append(url)
    return kept


def _is_wide(folder: Path) -> bool:
    """Whether set-up is never shown a folder, whatever is configured: homes, and all that homes lie in."""
    homes = {Path(os.path.realpath(home)) for home in (Path.home(), os.environ.get("HOME", "/nonexistent"))}
    wide = {Path("/"), Path("/home"), Path("/root"), *homes, *(above for home in homes for above in home.parents)}
    return Path(os.path.realpath(folder)) in wide


def _local(places: Iterable[str], notes: list[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The folders of indexes and links on this machine with those that an index's pages point to, and the files that
    are links themselves, with the archives that they point to."""
    found: list[Path] = []
    files: list[Path] = []
    for path in filter(None, map(_local_path, places)):
        if not os.access(path, os.R_OK):
            continue
        if path.is_dir():
            found += [path, *([] if _is_wide(path) else _pointed_to(path))]
        elif path.is_file():
            files += [path, *_archives_of(path)]
    shut = [path for path in dict.fromkeys(found) if _is_wide(path)]
    notes += [f"the package folder {path} holds more than packages and is not shown to set-up" for path in shut]
    found = [path for path in dict.fromkeys(found) if path not in shut]
    folders = tuple(p for p in found if not any(p != other and p.is_relative_to(other) for other in found))
    return folders, tuple(f for f in dict.fromkeys(files) if not any(f.is_relative_to(folder) for folder in folders))


def _archives_of(page: Path) -> list[Path]:
    """What a page of links names beside itself or elsewhere on this machine; nothing for a page that is an archive."""
    if page.suffix not in (".html", ".htm"):
        return []
    return [path for path in _links_of(page) if path.name.endswith(_ARCHIVES) and path.is_file()]


def _links_of(page: Path) -> Iterator[Path]:
    """The places on this machine that a page links to."""
    for link in _HREF.findall(page.read_text(encoding="utf-8", errors="replace")):
        path = _local_path(link) or (page.parent / unquote(link) if "://" not in link else None)
        if path is not None:
            yield Path(os.path.normpath(path))


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(url) if not parts.scheme and url.startswith("/") else None


def _pointed_to(index: Path) -> list[Path]:
    """Folders outside an index in which the files lie that its pages link to."""
    pages = itertools.islice(index.glob("*/index.html"), _PAGES)
    folders = dict.fromkeys(path.parent for page in pages for path in _links_of(page))
    return [folder for folder in folders if folder.is_dir() and not folder.is_relative_to(index)]


def uv_binary() -> Path:
    """The uv that set-up installs with. Raises uv's FileNotFoundError where the package came without it."""
    from uv import find_uv_bin

    # uv asks sysconfig, whose first answer is wrong in a thread that asks while another's question is being answered.
    with _finding_uv:
        return Path(find_uv_bin())
