"""Paths as people write them."""

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
