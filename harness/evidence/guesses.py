"""What a witness test asserts that nobody stated: a wording or a value that neither the issue nor the base has.

Such a test may show just what its author guessed. It counts less than one that asserts what can be read somewhere; and
however many attempts copy the same guess, together they have one voice.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.code.facts import SCOPES, parsed
from harness.evidence.verify import witness_name
from harness.records import WitnessTest

GUESSED = 0.25
"""What a test that asserts a guess counts, beside 1 for one that does not."""

LONG = 3
"""Letters that a word must have to be missed among others."""

_WORD = re.compile(r"[^\W\d_]{2,}|\d+")
_NOT_DECIMAL = re.compile(r"\b0o[0-7]{1,20}\b|\b0x[0-9a-fA-F]{1,16}\b")
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
    """The texts and numbers that a test expects and `known` has not: neither whole, nor each of their words and
    numbers (of several words the short ones may be missing); nor does the test itself put them in, or define them."""
    tree = parsed(test.encode("utf-8", "surrogateescape"))
    if tree is None:
        return frozenset()
    wanted = {id(node): node for place in ast.walk(tree) for node in _expected(place)}
    own = [_text(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in wanted]
    own += [n.name for n in ast.walk(tree) if isinstance(n, SCOPES)]
    known = _plain(" ".join([known, *own, *(str(int(number, 0)) for number in _NOT_DECIMAL.findall(known))]))
    words = set(_WORD.findall(known.lower()))
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
    """A constant as it would be written; of a pattern the pieces between wildcards. Letters and marks that stand alone
    are no wording."""
    text = node.id if isinstance(node, ast.Name) else _text(getattr(node, "value", ""))
    pieces = [_plain(piece.replace("\\", "")) for piece in re.split(r"\.[*+]\??", text)]
    return [piece for piece in pieces if piece not in _TRIVIAL and not re.fullmatch(r"[\W_]*[^\W\d_]?[\W_]*", piece)]


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _is_stated(text: str, known: str, words: set[str]) -> bool:
    if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", known):
        return True
    own = _WORD.findall(text.lower())
    long = [word for word in own if len(word) >= LONG and not word.isdigit()]
    return words.issuperset(own) or (len(long) > 1 and words.issuperset(long))


def _plain(text: str) -> str:
    return " ".join(text.split())
