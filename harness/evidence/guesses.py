"""What a witness test asserts that nobody stated: a wording or a value that neither the issue nor the base has.

Such a test may show just what its author guessed. It counts less than one that asserts what can be read somewhere; and
however many attempts copy the same guess, together they have one voice.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.code.facts import parsed
from harness.evidence.verify import witness_name
from harness.records import WitnessTest

GUESSED = 0.25
"""What a test that asserts a guess counts, beside 1 for one that does not."""

_TRIVIAL = frozenset({"", "0", "1", "-1", "None", "True", "False"})
_RAISES = ("raises", "assertRaises", "assertRaisesRegex", "warns", "assertWarns")


def weights_of(witnesses: Sequence[WitnessTest], stated: Sequence[str]) -> dict[str, float]:
    """What each witness test counts, 0..1, by its name in the evidence. `stated`: the issue's text and the base's files
    that are touched."""
    known = "\n".join(stated)
    found = {(w.path, w.text): (witness_name(w), guesses(w.text, known)) for w in reversed(witnesses)}
    copies = Counter(guess for _, guess in found.values())
    return {name: GUESSED / copies[guess] if guess else 1.0 for name, guess in found.values()}


def guesses(test: str, known: str) -> frozenset[str]:
    """The texts and numbers that a test expects and `known` has not: neither whole, nor, where they are words, every
    word; nor does the test itself put them in."""
    tree = parsed(test.encode("utf-8", "surrogateescape"))
    if tree is None:
        return frozenset()
    wanted = {id(node): node for place in ast.walk(tree) for node in _expected(place)}
    own = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in wanted)
    known = _plain(" ".join([known, *(str(n.value) for n in own)]))
    words = set(re.findall(r"[^\W\d_]{3,}", known.lower()))
    return frozenset(text for node in wanted.values() for text in _texts(node) if not _is_stated(text, known, words))


def _expected(node: ast.AST) -> Iterator[ast.expr]:
    """What is compared with in an assertion: constants outside of the calls in it, and the errors that must occur."""
    if isinstance(node, ast.Assert):
        yield from _constants(node.test)
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _RAISES:
            yield from (each for each in node.args[:1] if isinstance(each, ast.Name))
            yield from (each.value for each in node.keywords if each.arg == "match")
        if name.startswith("assert"):
            yield from (found for each in node.args for found in _constants(each))


def _constants(node: ast.AST) -> Iterator[ast.Constant]:
    if isinstance(node, ast.Constant):
        yield node
    elif not isinstance(node, (ast.Call, ast.Subscript)):
        for child in ast.iter_child_nodes(node):
            yield from _constants(child)


def _texts(node: ast.expr) -> list[str]:
    """A constant as it would be written; of a pattern the pieces between wildcards. A letter is no wording."""
    text = node.id if isinstance(node, ast.Name) else str(getattr(node, "value", ""))
    pieces = [_plain(piece.replace("\\", "")) for piece in re.split(r"\.[*+]\??", text)]
    return [piece for piece in pieces if piece not in _TRIVIAL and not (len(piece) == 1 and piece.isalpha())]


def _is_stated(text: str, known: str, words: set[str]) -> bool:
    if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", known):
        return True
    own = re.findall(r"[^\W\d_]{3,}", text.lower())
    return len(own) > 1 and words.issuperset(own)


def _plain(text: str) -> str:
    return " ".join(text.split())
