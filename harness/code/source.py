"""Python source of others, parsed: of files, patches, tests and models' answers. Nothing in it ends who asks."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache

MOST_BYTES = 4_000_000
"""Of a source that is looked at: a tree takes some fifty times as much memory."""
KEPT = 16
"""Files whose tree is kept: the base's own are wanted again for every candidate that changes them."""

FAILS = (SyntaxError, ValueError, LookupError, MemoryError, RecursionError, SystemError)
"""How Python's parser, its symbol tables and walks of a tree end on some texts: no Python, a zero byte, an unknown
coding, 50,000 signs in a row."""


class NotPython(ValueError):
    """A source that has no tree; the message says why."""


def parse(source: str | bytes, name: str = "<unknown>") -> ast.Module:
    """The syntax tree. Raises NotPython for what the Python that runs Troop cannot parse, whatever the reason."""
    if len(source) > MOST_BYTES:
        raise NotPython(f"it is longer than {MOST_BYTES} bytes")
    try:
        return ast.parse(source, name)
    except FAILS as error:
        raise NotPython(str(error) or "it is nested too deeply") from error


@lru_cache(maxsize=KEPT)
def parsed(source: str | bytes | None) -> ast.Module | None:
    """The syntax tree, None for no source or one that cannot be parsed. It is shared: not to be changed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return None if source is None else parse(source)
    except NotPython:
        return None
