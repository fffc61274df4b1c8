"""`--instances`: which instances of a suite are meant by ids, globs, repositories and samples."""

import difflib
import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence

from tasks.errors import InputError

_SAMPLE = re.compile(r"sample:(\d+)(?:@(\w+))?")


def choose(
    names: Mapping[str, str], patterns: Sequence[str], repositories: Mapping[str, str] | None = None
) -> list[str]:
    """The ids that any of the patterns names, in the order of `names`; all of them without a pattern.

    `names`: by id, the name without what all ids of a suite or a project begin with. `repositories`: owner/name by id.
    A pattern is an id or a glob; where no id is meant, a bare name or a glob of bare names; `repo:NAME` (`repo:sympy`,
    `repo:sympy/sympy`); or, once, `sample:N@SEED` (N of what the other patterns name; the same for the same seed, which
    is 0 unless given). Several may be joined by commas. Raises InputError for a pattern that names nothing, with the
    ids, names or repositories most like it."""
    single = split(patterns)
    samples = [pattern for pattern in single if pattern.startswith("sample:")]
    if len(samples) > 1:
        raise InputError(f"--instances takes one sample, not {' and '.join(samples)}")
    others = [pattern for pattern in single if pattern not in samples]
    chosen = {id for pattern in others for id in _meant(names, pattern, repositories or {})}
    left = [id for id in names if id in chosen] if others else list(names)
    return _sample(left, samples[0]) if samples else left


def split(patterns: Sequence[str]) -> list[str]:
    """The single patterns of a list whose entries may be joined by commas."""
    return [part.strip() for pattern in patterns for part in pattern.split(",") if part.strip()]


def matching(names: Mapping[str, str], pattern: str) -> list[str]:
    """The ids that a glob names; where it names none, those whose bare names it names."""
    by_id = [id for id in names if fnmatch.fnmatchcase(id, pattern)]
    return by_id or [id for id, name in names.items() if fnmatch.fnmatchcase(name, pattern)]


def bare(instance: str) -> str:
    """The name of a SWE-bench instance (owner__name-number) without the owner."""
    return instance.partition("__")[2] or instance


def _meant(names: Mapping[str, str], pattern: str, repositories: Mapping[str, str]) -> list[str]:
    """The ids that one pattern names. Raises InputError if there are none."""
    if pattern.startswith("repo:"):
        like = pattern.removeprefix("repo:")
        found = [id for id, repo in repositories.items() if like in (repo, repo.partition("/")[2])]
        known = {name for repo in repositories.values() for name in (repo, repo.partition("/")[2])}
        what = f"no instance is of the repository {like!r}"
    else:
        like = pattern.strip("*")
        found = matching(names, pattern)
        known = {*names, *names.values()}
        what = f"no instance is called {pattern!r}"
    if not found:
        near = difflib.get_close_matches(like, sorted(known), n=3, cutoff=0.5)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise InputError(f"--instances: {what}{hint}")
    return found


def _sample(ids: Sequence[str], pattern: str) -> list[str]:
    match = _SAMPLE.fullmatch(pattern)
    if match is None or int(match[1]) == 0:
        raise InputError(f"--instances: {pattern!r} is no sample; one is written sample:20 or sample:20@SEED")
    lots = {id: hashlib.sha256(f"{match[2] or 0}:{id}".encode()).hexdigest() for id in ids}
    drawn = set(sorted(ids, key=lots.__getitem__)[: int(match[1])])
    return [id for id in ids if id in drawn]
