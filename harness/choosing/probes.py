"""Probes: what an issue's text shows, made runnable.

Code blocks, doctest and IPython sessions, and calls in the running text become the steps of one session; files that the
text shows, and the commands that it runs on them, become commands in a directory of their own. Nothing is run here: a
probe is run in a sandbox on the base and on every candidate, and what differs is evidence. What a text shows as output
is cut off.
"""

import ast
import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from harness.choosing.statement import Block, Statement
from harness.code.facts import parsed

STEPS_AT_MOST = 60
COMMANDS_AT_MOST = 6

_PROMPT = re.compile(r"^\s*>>>(?: (.*)|\s*$)")
_GOES_ON = re.compile(r"^\s*\.\.\.(?: (.*)|\s*$)")
_IN = re.compile(r"^\s*In \[?\s*\d*\s*\]?:\s?(.*)$")
_CONTINUED = re.compile(r"^\s+\.\.\.+:\s?(.*)$")
_QUOTED = re.compile(r"^>\s+(\S.*)$")
_PRINT = re.compile(r"^(\s*)print[ \t]+(?![(=])(.+?)\s*$", re.MULTILINE)
_FILE_NAME = re.compile(r"(?<![\w./-])([\w./-]+\.(?:py|rst|txt|cfg|toml|ini))")
_TITLE = re.compile(
    r"^\s*(?:#|\.\.|//)\s*(?:content of|file:?)?\s*([\w./-]+\.(?:py|rst|cfg|toml|ini))\s*$", re.IGNORECASE
)
_CALL = re.compile(r"(?<![\w.\\])[A-Za-z_][\w.]*\((?:[^()\n]|\((?:[^()\n]|\([^()\n]*\))*\))*\)(?:\.\w+\([^()\n]*\))*")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_MAY_RUN = {"python", "python3", "pytest", "py.test", "pylint", "sphinx-build", "flask"}
_MAY_RUN |= {"mkdir", "touch", "echo", "cat", "cd"}
_SHELL_WORDS = ("sh", "shell", "bash", "console", "zsh", "sh-session", "shell-session")

CHECKERS = {"pytest": "python -m pytest -p no:cacheprovider {files}", "pylint": "python -m pylint {files}"}
"""Packages whose input is Python files: what runs them on files that a text shows."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to run. `steps`: of a session, Python source each, in one namespace, later ones run though an earlier
    one failed; or `command`: a shell command in a directory that holds `files` (path, text)."""

    name: str
    steps: tuple[str, ...] = ()
    command: str = ""
    files: tuple[tuple[str, str], ...] = ()


def probes_of(statement: Statement, packages: Sequence[str] = ()) -> tuple[Probe, ...]:
    """The probes that an issue's text gives. `packages`: the import names of the repository."""
    checker = next((CHECKERS[p] for p in packages if p in CHECKERS), "")
    files = _files(statement, checker)
    shown = set(files.values())
    steps: list[str] = []
    for block in statement.blocks:
        if block.text not in shown and block.language not in _SHELL_WORDS:
            steps += steps_of(block.text)
    steps += [call for call in _calls(statement) if call not in steps]
    steps = list(dict.fromkeys(steps)) if len(steps) > STEPS_AT_MOST else steps
    found = [Probe("session", tuple(steps[:STEPS_AT_MOST]))] if any(map(_acts, steps)) else []
    kept = tuple(sorted(files.items()))
    commands = _commands(statement, checker, files)
    found += [Probe(f"command-{n}", command=c, files=kept) for n, c in enumerate(commands[:COMMANDS_AT_MOST], 1)]
    if "sphinx" in packages:
        found += _manual(files, statement)
    return tuple(found)


def steps_of(text: str) -> list[str]:
    """The statements of a block, as source each; empty for what is no Python. Output and prompts are left out."""
    lines = text.split("\n")
    if any(_PROMPT.match(line) for line in lines):
        pieces = _prompted(lines, _PROMPT, _GOES_ON)
    elif any(_IN.match(line) for line in lines):
        pieces = _prompted(lines, _IN, _CONTINUED)
    elif any(_QUOTED.match(line) for line in lines) and not any(map(_unquoted_code, lines)):
        pieces = [m[1] for m in map(_QUOTED.match, lines) if m]
    else:
        pieces = [_script(text)]
    return [step for piece in pieces for step in _statements(piece)]


def _unquoted_code(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(">") and _parses(line) and "(" in line


def _prompted(lines: Sequence[str], prompt: re.Pattern[str], more: re.Pattern[str]) -> list[str]:
    """What was typed at the prompts of a session."""
    pieces: list[list[str]] = []
    typing = False
    for line in lines:
        if match := prompt.match(line):
            pieces.append([match[1] or ""])
        elif typing and (match := more.match(line)):
            pieces[-1].append(match[1] or "")
        typing = match is not None
    return ["\n".join(piece) for piece in pieces]


def _script(text: str) -> str:
    """The longest beginning of a block that is Python."""
    plain = _modern(textwrap.dedent(text.expandtabs(4)).strip("\n"))
    lines = plain.split("\n")[:500]  # each beginning of these is tried
    for end in range(len(lines), 0, -1):
        candidate = "\n".join(lines[:end])
        if candidate.strip() and _parses(candidate):
            return candidate
    return ""


def _modern(text: str) -> str:
    """Print statements as calls, where that makes the text Python."""
    return text if _parses(text) else _PRINT.sub(r"\1print(\2)", text)


def _parses(text: str) -> bool:
    return parsed(text) is not None


def _body(text: str) -> list[ast.stmt]:
    """The statements of a text; none of one that is no Python."""
    tree = parsed(text)
    return tree.body if tree is not None else []


def _statements(source: str) -> list[str]:
    """The top-level statements of a piece of source, "" for one that is no Python."""
    plain = _modern(textwrap.dedent(source))
    lines = plain.split("\n")
    found = []
    for node in _body(plain):
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        assert node.end_lineno is not None, "the parser gives positions"
        found.append("\n".join(lines[first - 1 : node.end_lineno]))
    return [step for step in found if not _is_prose(step)]


def _is_prose(step: str) -> bool:
    """A lone word, number or string says nothing when run."""
    node = next(iter(_body(step)), None)
    return isinstance(node, ast.Expr) and isinstance(node.value, (ast.Name, ast.Constant)) and len(step) > 24


def _acts(step: str) -> bool:
    """Whether running a step can show anything: more than imports and definitions."""
    defines = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(not isinstance(node, defines) for node in _body(step))


def _calls(statement: Statement) -> list[str]:
    """Calls in the running text: in backquotes, and in the first line."""
    outside = statement.plain
    for block in statement.blocks:
        outside = outside.replace(block.text, "\n")
    title = statement.plain.partition("\n")[0]
    found = [m[1].strip() for m in _INLINE.finditer(outside)]
    found += [m[0] for m in _CALL.finditer(re.sub(r"`[^`]*`", " ", title))]
    return list(dict.fromkeys(text for text in found if _is_call(text) and not _FILE_NAME.fullmatch(text)))


def _is_call(text: str) -> bool:
    body = _body(text)
    if len(body) != 1 or not isinstance(body[0], ast.Expr):
        return False
    node = body[0].value
    if isinstance(node, ast.Call) and not node.args and not node.keywords and isinstance(node.func, ast.Name):
        return False
    if any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(node)):
        return False
    return any(isinstance(n, (ast.Call, ast.BinOp)) for n in ast.walk(node))


# Files and commands


def _files(statement: Statement, checker: str) -> dict[str, str]:
    """Files that the text shows: named in the line before a block or in its first; for a checker also unnamed ones."""
    found: dict[str, str] = {}
    for number, block in enumerate(statement.blocks):
        title = _TITLE.match(block.text.lstrip("\n").split("\n")[0])
        name = (title and title[1]) or _name_before(statement, block)
        if name and ".." not in name and not name.startswith("/"):
            found.setdefault(name, block.text)
        elif checker and _checkable(block, checker):
            found.setdefault(f"test_shown_{number}.py", _script(block.text))
    return found


def _checkable(block: Block, checker: str) -> bool:
    source = _script(block.text)
    if "pytest" in checker:
        return re.search(r"^\s*(?:async )?def test|^class Test", source, re.MULTILINE) is not None
    return block.language in ("python", "py", "python3", "") and source.count("\n") >= 1 and "Traceback" not in source


def _name_before(statement: Statement, block: Block) -> str:
    before = statement.plain[: block.start].rstrip().rpartition("\n")[2]
    names = _FILE_NAME.findall(before)
    return names[-1] if names and len(before.split()) <= 4 else ""


def _commands(statement: Statement, checker: str, files: dict[str, str]) -> list[str]:
    shown = [line for block in statement.blocks for line in _shell_lines(block)]
    shown += [m[1] for m in _INLINE.finditer(statement.plain) if _may_run(m[1]) and " " in m[1].strip()]
    python = [name for name in sorted(files) if name.endswith(".py")]
    # A command of the text on files that it does not show would only say so.
    useful = [c for c in dict.fromkeys(shown) if python or not checker or "-c" in c]
    if checker and python:
        useful.append(checker.format(files=shlex.join(python)))
    return useful


def _shell_lines(block: Block) -> list[str]:
    lines = [line.strip() for line in block.text.split("\n")]
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    plain = lines if block.language in _SHELL_WORDS and not prompted else []
    # What is typed first in a fence without a language may be a command as well.
    alone = lines if not prompted and not plain and len([line for line in lines if line]) == 1 else []
    return [line for line in (*prompted, *plain, *alone) if _may_run(line)]


def _may_run(line: str) -> bool:
    first = line.split(" ")[0]
    return first in _MAY_RUN and not re.search(r"[<>]\s*/|&\s*$|\bsudo\b|\brm\b|\bpip\b", line)


def _manual(files: dict[str, str], statement: Statement) -> list[Probe]:
    """The text's sources as a project of their own, built; the result is printed as text."""
    sources = {n: t for n, t in files.items() if not n.startswith("/")}
    rst = [b for b in statement.blocks if b.text not in sources.values() and re.search(r"^\s*\.\. \w+::", b.text, re.M)]
    if not rst and not any(n.endswith(".rst") for n in sources):
        return []
    loose = "\n\n".join(textwrap.dedent(b.text).strip("\n") for b in rst)
    if "index.rst" not in sources:
        sources["index.rst"] = f"Index\n=====\n\n{loose}\n"
    extensions = sorted(set(re.findall(r"sphinx\.ext\.\w+", statement.plain)) | {"sphinx.ext.autodoc"})
    opening = f"import sys\nsys.path.insert(0, '.')\nextensions = {extensions!r}\nhtml_theme = 'basic'\n"
    sources["conf.py"] = opening + (sources["conf.py"] if _parses(sources.get("conf.py", "(")) else "")
    show = "python -m sphinx -q -E -b {0} . out-{0}; cat out-{0}/index.*"
    kept = tuple(sorted(sources.items()))
    return [Probe(f"manual-{b}", command=show.format(b), files=kept) for b in ("text", "html")]
