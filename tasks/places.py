"""Paths as people write them, and directories that are there whole or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` written out; as it stands where nobody of that name has a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: Path) -> bool:
    """Whether the path names something that can be looked at. What cannot be a path (too long) names nothing."""
    try:
        return path.exists()
    except OSError:
        return False


@contextlib.contextmanager
def made_whole(place: Path, scratch: Path) -> Iterator[Path]:
    """Within: an empty directory, which then becomes `place`, unless another process was first: then that one's stays.
    `scratch`: where it lies until then, on the same file system; made if missing."""
    for folder in (place.parent, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".making-", ignore_cleanup_errors=True) as around:
        made = Path(around) / "made"
        made.mkdir()
        yield made
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():
                raise
