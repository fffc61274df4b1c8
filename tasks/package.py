"""A released package as a repository: its source distribution, fetched and unpacked without executing any of it."""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.request import url2pathname

from tasks.errors import REFUSALS, InputError, SourceUnavailable
from tasks.package_index import Index, Release, normalised, shown
from tasks.say import Say

ARCHIVE_BYTES = 500_000_000
UNPACKED_BYTES = 2_000_000_000
UNPACKED_FILES = 200_000

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*==\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*")
_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
_VERSION = re.compile(r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)[._-]?(.*)", re.IGNORECASE)
_Key = tuple[int, tuple[int, ...], str]


def parse_requirement(requirement: str) -> tuple[str, str]:
    """("name", "1.2.3") of "name==1.2.3". Raises InputError for anything else: ranges, extras, wildcards."""
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise InputError(f"a released package is written name==version, such as attrs==23.1.0, not {requirement!r}")
    return match[1], match[2]


def unpack(requirement: str, directory: Path, *, cache: Path | None = None, say: Say = lambda line: None) -> str:
    """Put the source distribution of `requirement` ("name==version") into `directory`, which must be empty or new.

    The archive is kept in `cache` (if given) under its name, version and hash. Its single top directory is stripped;
    PKG-INFO stays, since build backends that read the version from git fall back to it. Returns one line that says
    what was unpacked. Raises InputError (unknown package or version, no source distribution, unsafe archive) and
    SourceUnavailable (the index cannot be reached)."""
    name, version = parse_requirement(requirement)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty: a package is unpacked into a directory of its own")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".unpack-") as scratch:
        archive = _archive(normalised(name), version, cache, Path(scratch), say)
        top = _extract(archive, Path(scratch, "unpacked"))
        shutil.rmtree(top / ".git", ignore_errors=True)
        if directory.exists():
            directory.rmdir()
        top.rename(directory)
        return f"{archive.name} from the package index, sha256 {_sha256(archive)}"


def _archive(name: str, version: str, cache: Path | None, work: Path, say: Say) -> Path:
    """The archive on disk: in the cache, or without one in the directory `work`, into which it is fetched."""
    key = f"{name}-{version.lower()}"
    for found in sorted((cache / key).glob("*/*")) if cache is not None else ():
        if found.parent.name == _sha256(found):
            return found
    index = Index.of_pip()
    release = choose(name, version, index.releases(name))
    say(f"fetching {release.filename} from {shown(release.url).rpartition('/')[0]}")
    download = work / release.filename
    _download(index, release, download)
    if cache is None:
        return download
    place = cache / key / _sha256(download)
    place.mkdir(parents=True, exist_ok=True)
    # A copy under another name first: a half-written archive must never stand under the final one.
    partial = place.with_name(f".{place.name}-{os.getpid()}")
    shutil.copyfile(download, partial)
    return partial.replace(place / release.filename)


def choose(name: str, version: str, releases: list[Release]) -> Release:
    """The source distribution of that version among an index's files. Raises InputError naming the nearest versions."""
    sources: dict[_Key, tuple[str, Release]] = {}
    wheels: set[_Key] = set()
    for release in releases:
        if found := _source_version(name, release.filename):
            sources.setdefault(_version_key(found), (found, release))
        elif release.filename.endswith(".whl") and release.filename.count("-") >= 4:
            wheels.add(_version_key(release.filename.split("-")[1]))
    wanted = _version_key(version)
    if wanted in sources:
        return sources[wanted][1]
    near = ", ".join(_nearest(wanted, sources))
    hint = f"; versions that have one, nearest first: {near}" if near else ""
    if wanted in wheels:
        raise InputError(f"{name}=={version} was released without a source distribution{hint}")
    raise InputError(f"the package index has no source distribution of {name}=={version}{hint}")


def _source_version(name: str, filename: str) -> str | None:
    """The version in a source distribution's file name; None for wheels and other files."""
    suffix = next((s for s in _SUFFIXES if filename.endswith(s)), None)
    if suffix is None:
        return None
    stem = filename.removesuffix(suffix)
    for at in (i for i, c in enumerate(stem) if c == "-"):
        if normalised(stem[:at]) == name and _VERSION.fullmatch(stem[at + 1 :]):
            return stem[at + 1 :]
    return None


def _version_key(version: str) -> _Key:
    """Equal for spellings of one version (1.0 and 1.0.0, 1.0-rc1 and 1.0rc1), and sortable among releases."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (0, (), version)
    numbers = [int(part) for part in match[2].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    suffix = re.sub(r"[._-]", "", match[3].lower())
    for long, short in (("alpha", "a"), ("beta", "b"), ("preview|pre|c", "rc")):
        suffix = re.sub(rf"^({long})(?=\d|$)", short, suffix)
    return (int(match[1] or 0), tuple(numbers), suffix)


def _nearest(wanted: _Key, sources: dict[_Key, tuple[str, Release]]) -> list[str]:
    ordered = sorted({*sources, wanted})
    at = ordered.index(wanted)
    by_distance = sorted((abs(i - at), -i, key) for i, key in enumerate(ordered) if key != wanted)
    return [sources[key][0] for _, _, key in by_distance[:5]]


def _download(index: Index, release: Release, place: Path) -> None:
    if "/" in release.filename or release.filename.startswith("."):
        raise InputError(f"the package index names a file {release.filename!r}, which is not a file name")
    if release.url.startswith("file:"):
        shutil.copyfile(url2pathname(release.url.removeprefix("file://")), place)
    else:
        with index.get(release.url, encoding="identity") as response, place.open("wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                if file.tell() > ARCHIVE_BYTES:
                    raise InputError(f"{release.filename} is larger than {ARCHIVE_BYTES // 1_000_000} MB")
    if release.sha256 and _sha256(place) != release.sha256.lower():
        raise SourceUnavailable(f"{release.filename} arrived damaged: its sha256 is not the one that the index names")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(archive: Path, into: Path) -> Path:
    """Unpack into a new directory; the tree's top in there. Raises InputError for an unsafe or broken archive."""
    into.mkdir()
    try:
        if archive.name.endswith(".zip"):
            _extract_zip(archive, into)
        else:
            _extract_tar(archive, into)
        top = _top_directory(into)
        _check_links(top)
        return top
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, OverflowError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise
        raise InputError(f"{archive.name} cannot be unpacked safely: {error}") from error


def _extract_tar(archive: Path, into: Path) -> None:
    """Directories, files and links, and of their modes only whether a file is executable; anything else is refused.

    Not `extractall(filter="data")`, which Python 3.11 has from 3.11.4 only. Links come last, so nothing is written
    through one; where they lead is looked at when all of them are there (`_check_links`)."""
    links: dict[Path, str] = {}
    with tarfile.open(archive) as tar:
        size = 0
        for count, member in enumerate(tar, start=1):
            size += member.size
            _check_size(archive, count, size)
            place = into / _safe_name(member.name)
            links.pop(place, None)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.issym():
                place.parent.mkdir(parents=True, exist_ok=True)
                links[place] = member.linkname
            elif member.isreg() or member.islnk():
                _write_member(tar, member, place)
            else:
                raise ValueError(f"{member.name!r} is neither a file, a directory nor a link")
    for place, target in links.items():
        place.symlink_to(target)


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    """A regular file, or a copy of the archived file that a hard link names."""
    try:
        content = tar.extractfile(member)
    except KeyError as error:
        raise ValueError(f"{member.name!r} is a link to {member.linkname!r}, which the archive has not") from error
    if content is None:  # a hard link to a directory or a device
        raise ValueError(f"{member.name!r} is a link to something that is not a file")
    place.parent.mkdir(parents=True, exist_ok=True)
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
    place.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(place, (member.mtime, member.mtime))


def _check_links(tree: Path) -> None:
    """Refuse links that lead out of the tree, whatever the way there (other links, "..")."""
    top = os.path.realpath(tree)
    for directory, folders, files in os.walk(tree):
        for path in (Path(directory, name) for name in (*folders, *files)):
            if not path.is_symlink():
                continue
            target = os.path.realpath(path)
            if path.readlink().is_absolute() or not (target == top or target.startswith(top + os.sep)):
                raise ValueError(f"{path.relative_to(tree).as_posix()!r} is a link that leads out of it")


def _safe_name(name: str) -> PurePosixPath:
    """The name as a path that stays below where it is put. Raises ValueError."""
    for path in (PurePosixPath(name), PurePosixPath(name.replace("\\", "/"))):
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of it")
    return PurePosixPath(name)


def _extract_zip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        _check_size(archive, len(entries), sum(entry.file_size for entry in entries))
        for entry in entries:
            _safe_name(entry.filename)
            packed.extract(entry, into)


def _check_size(archive: Path, files: int, size: int) -> None:
    if files > UNPACKED_FILES or size > UNPACKED_BYTES:
        most = f"{UNPACKED_FILES} files or {UNPACKED_BYTES // 1_000_000} MB"
        raise InputError(f"{archive.name} unpacks to more than {most}")


def _top_directory(unpacked: Path) -> Path:
    entries = list(unpacked.iterdir())
    if not entries:
        raise InputError("the source distribution is empty")
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        return entries[0]
    # Old source distributions without a top directory: the scratch directory's contents are the tree.
    top = unpacked / ".tree"
    top.mkdir()
    for entry in entries:
        entry.rename(top / entry.name)
    return top
