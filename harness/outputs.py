"""Directories that Troop writes its results to: out of git's sight, and never a part of what an attempt is given."""

from pathlib import Path

_IGNORED = "# Made by Troop: attempts, traces and patches are no part of the repository around them.\n*\n"
_KINDS = (
    ("run.json", "trace.jsonl"),  # a run
    ("eval.json", ".lock"),  # an evaluation
    ("report.json", ".lock"),  # a grading
    ("samples.jsonl.gz", "predictions.jsonl"),  # a selection
)


def make_output(directory: Path) -> None:
    """Make a directory for results, or use one that is there; a new or empty one is first of all hidden from git.

    One that holds files is left as it is: they may be somebody's, who wants them seen. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    if not any(directory.iterdir()):
        part = directory / ".gitignore.part"
        part.write_text(_IGNORED, encoding="utf-8")
        part.replace(directory / ".gitignore")


def is_output(directory: Path) -> bool:
    """Whether the directory holds results of Troop's, also those of a release that did not hide them."""
    return any(all((directory / name).is_file() for name in names) for names in _KINDS)
