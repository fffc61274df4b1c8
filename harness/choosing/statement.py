"""What an issue's text points at: code, names, files, the frames of tracebacks, the exceptions it complains of."""

import re
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([^\n`]*)\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_SESSION = re.compile(r"^[^\S\n]*(?:>>>|\.\.\.)(?: .*|[^\S\n]*)$(?:\n.*\S.*$)*", re.MULTILINE)
"""Lines that belong to a doctest session: from a prompt to the next blank line."""
_INDENTED = re.compile(r"(?:\A|^[^\S\n]*\n)((?: {4}|\t).*\S.*$(?:\n(?:(?: {4}|\t).*|[^\S\n]*)$)*)", re.MULTILINE)
"""What Markdown shows as code because it is indented by four columns, after a blank line or at the top."""
_INLINE = re.compile(r"`([^`\n]+)`")
_FRAMES = (  # Python's own, pytest's, IPython's
    re.compile(r'File "([^"\n]+)", line \d+, in (\S+)'),
    re.compile(r"^(?:E\s+)?([\w./\\-]+\.py):\d+: in (\S+)", re.MULTILINE),
    re.compile(r"^(?:~?[\w./\\-]*/)?([\w.\\-]+\.py)c? in (\w+)\(", re.MULTILINE),
)
_EXCEPTION = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit))\b")
_PATH = re.compile(r"(?<![\w./\\-])[\w./\\-]+\.py\b")  # begun once in a word, however long that is
_DOTTED = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b")
_WORD = re.compile(r"\b[A-Za-z_]\w{2,}\b")
_PACKAGES = ("site-packages/", "dist-packages/", "/testbed/", "/src/")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of code in the text. `language`: as its fence says, "" where it does not. `start`: where it begins."""

    text: str
    language: str
    start: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback; `path` as far as it can be told within a repository."""

    path: str
    function: str


@dataclass(frozen=True)
class Statement:
    """An issue's text, read. All of it is pure; nothing in the text is trusted or run here."""

    text: str

    @cached_property
    def plain(self) -> str:
        return self.text.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Fenced blocks, and indented or bare doctest sessions outside of them."""
        found = [Block(m[3], m[2].strip().lower().split(" ")[0], m.start()) for m in _FENCE.finditer(self.plain)]
        outside = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), self.plain)
        indented = (textwrap.dedent(text).strip("\n") for text in _INDENTED.findall(outside))
        unfenced = (*_SESSION.findall(outside), *(text for text in indented if ">>>" not in text))
        return (*found, *(Block(text, "", 0) for text in unfenced))

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """The frames of all tracebacks, outermost first within each."""
        found = [m for pattern in _FRAMES for m in pattern.finditer(self.plain)]
        return tuple(Frame(_place(m[1]), m[2]) for m in sorted(found, key=re.Match.start))

    @cached_property
    def exceptions(self) -> frozenset[str]:
        return frozenset(_EXCEPTION.findall(self.plain))

    @cached_property
    def paths(self) -> frozenset[str]:
        """Python files that are named anywhere, and what dotted names would be as files."""
        named = {_place(path) for path in _PATH.findall(self.plain)}
        return frozenset(named | {dotted.replace(".", "/") + ".py" for dotted in _DOTTED.findall(self.plain)})

    @cached_property
    def code_words(self) -> frozenset[str]:
        """Words in code, and words that look like it: with an underscore, a dot, capitals within, a bracket after."""
        code = "\n".join([*(b.text for b in self.blocks), *_INLINE.findall(self.plain)])
        shaped = re.findall(r"\b\w*_\w+\b|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z]+[A-Z]\w*\b|\b\w+(?=\()", self.plain)
        dotted = [part for name in _DOTTED.findall(self.plain) for part in name.split(".")]
        return frozenset(w for w in (*_WORD.findall(code), *shaped, *dotted) if len(w) > 2)


def names_file(statement: Statement, path: str) -> float:
    """How clearly the statement names a file: 1.0 by its path, 0.5 by its bare name or module name, 0.0 not at all."""
    pure = PurePosixPath(path)
    tails = {named for named in statement.paths if path == named or path.endswith("/" + named) or named.endswith(path)}
    if any("/" in named or named == path for named in tails):
        return 1.0
    stem = pure.parent.name if pure.stem == "__init__" else pure.stem
    return 0.5 if tails or stem in statement.code_words else 0.0


def _place(path: str) -> str:
    clean = path.replace("\\", "/")
    for mark in _PACKAGES:
        _, found, rest = clean.rpartition(mark)
        if found:
            return rest
    return clean.lstrip("./~")
