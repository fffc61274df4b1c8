"""What an attempt may do: read, search, edit, run, test, record a witness test, submit.

Each tool is one entry of `TOOLS`: a table of prompts/tools.toml, and a function from a `Toolbox` (the attempt's sandbox
and settings) and the call's arguments to a text that is short, says what happened, and helps with the next step.
Whoever has to tell tools apart asks for their kind. Those that test or end are carried out by the attempt's graph
(`agent.attempt.graph`): a test run is a node of its own.
"""

import asyncio
import contextlib
import difflib
import errno
import posixpath
import re
import time
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.attempt.lines import cut_line, cut_middle, fitting, lines_of, replaced, shown
from agent.attempt.policy import ToolCall
from agent.attempt.telling import witness_words
from harness.code.facts import parsed, spans
from harness.evidence.guesses import guesses
from harness.evidence.unchanged import UnchangedCode
from harness.patches.extract import take_patch
from harness.patches.patch import Patch
from harness.patches.paths import place_of_new_test
from harness.records import Exec, Json, TestReport, WitnessTest
from harness.sandbox.base import TROOPDIR, WORKDIR, Sandbox
from harness.trace import ToolRan
from tasks.errors import PatchNotTaken

READ_LINES = 250
RESULT_CHARS = 10_000
NOTE_CHARS = 200
"""Of a tool's answer: what it shows, and what it says about that."""
SEARCH_HITS = 60
HIT_CHARS = 300
_BASE = ("git", f"--git-dir={TROOPDIR}/base.git")

Kind = Literal["reads", "edits", "runs", "tests", "ends"]


class ToolRefused(Exception):
    """The tool cannot do what was asked; the message is the answer that the policy gets."""


@dataclass(slots=True)
class Toolbox:
    """What the tools of one attempt work with.

    `new_test` runs a new test file in the tree: the report, and the file's outcome ("untold": it could not be run
    singly; "missing": no test of it was collected). `patch`: the patch as it would be taken now, without these further
    paths; raises PatchNotTaken. `recorded`: the witness tests so far; `given`: the given test's files. `undo`: the
    contents from before the edits of the last turn that had any, by path (None: the file was not there). `witnesses`:
    recorded, and not yet taken by the attempt's graph. `command_timeout` in seconds; `command_seconds`: time that
    commands took since it was last 0."""

    sandbox: Sandbox
    attempt: int
    command_timeout: float
    new_test: Callable[[str], Awaitable[tuple[TestReport, str]]]
    patch: Callable[[Sequence[str]], Awaitable[str]]
    unchanged: UnchangedCode | None
    statement: str
    recorded: Callable[[], Sequence[WitnessTest]]
    given: Sequence[str] = ()
    undo: dict[str, bytes | None] = field(default_factory=dict)
    witnesses: list[WitnessTest] = field(default_factory=list)
    command_seconds: float = 0.0
    undo_is_old: bool = False

    def begin_turn(self) -> None:
        """From here on an edit starts a new undo, forgetting the one of earlier turns."""
        self.undo_is_old = True
        self.command_seconds = 0.0

    def keep(self, path: str, content: bytes | None) -> None:
        """Remember what a path held before the turn's first edit of it."""
        if self.undo_is_old:
            self.undo.clear()
            self.undo_is_old = False
        self.undo.setdefault(path, content)


@dataclass(frozen=True, slots=True)
class Change:
    """A tool's answer together with the diff of what it changed."""

    text: str
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as a policy knows it, and the one place that names it.

    `kind`: "reads" leaves the tree as it is; "edits" changes the file that its argument `path` names; "runs" may change
    anything, and its argument `command`, if it has one, is looked through for tries to cheat; "tests" ends the turn
    with a test run, "ends" the attempt. `parameters`: JSON schema properties; `required`: those that must be given.
    `also`: names that other agents have for it, and `words` the names that they have for its arguments (two of ours,
    with a space between: a list is spread over them)."""

    name: str
    kind: Kind
    description: str
    parameters: Mapping[str, Json]
    required: Sequence[str]
    use: Callable[[Toolbox, Json], Awaitable[Change]]
    also: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def schema(self) -> Json:
        """The tool in the form of OpenAI's function protocol."""
        required = {"required": list(self.required)} if self.required else {}
        parameters = {"type": "object", "properties": dict(self.parameters), **required}
        last = " Must be the last call of a turn." if self.kind == "tests" else ""
        function = {"name": self.name, "description": self.description + last, "parameters": parameters}
        return {"type": "function", "function": function}

    def in_words(self) -> str:
        """The tool in a line, for who calls it in text."""
        arguments = [
            f"{name} ({schema['type']}{'' if name in self.required else ', optional'}): {schema['description']}"
            for name, schema in self.parameters.items()
        ]
        return f"- {self.name}: {self.description} Arguments: {'; '.join(arguments)}."


def tool_named(name: str, tools: Mapping[str, Tool]) -> Tool | None:
    """The tool of that name; else the one that other agents call so."""
    return tools.get(name) or next((tool for tool in tools.values() if name in tool.also), None)


def kind_of(name: str) -> Kind:
    """The kind of the tool of that name. One that there is no more (an older trace names it) counts as "runs"."""
    return TOOLS[name].kind if name in TOOLS else "runs"


async def use_tool(box: Toolbox, call: ToolCall, tools: Mapping[str, Tool] | None = None) -> ToolRan:
    """Carry out one call of one of the `tools` (None: all that attempts have). A refusal, a mistake in the arguments,
    and whatever the system inside the sandbox objects to are a result with ok False. In which attempt and turn it ran
    is for who writes it to the trace. Raises only what `Sandbox` raises where it is gone."""
    started = time.perf_counter()
    tools = TOOLS if tools is None else tools
    try:
        if problem := call.problem or argument_problem(call.name, call.arguments, tools):
            raise ToolRefused(problem)
        change, ok = await tools[call.name].use(box, call.arguments), True
    except (ToolRefused, PatchNotTaken, OSError, ValueError) as error:
        change, ok = Change(_refusal(error)), False
        if isinstance(error, FileNotFoundError) and error.filename:
            change = Change(f"{change.text}{await nearest(box, place_of(error.filename))}")
    text, seconds = cut_middle(change.text, RESULT_CHARS + NOTE_CHARS), time.perf_counter() - started
    return ToolRan(turn=0, call=call.id, name=call.name, result=text, ok=ok, diff=change.diff, seconds=seconds)


def argument_problem(name: str, arguments: Json, tools: Mapping[str, Tool]) -> str:
    """What is wrong with a call's name or arguments, as a sentence for the model; empty if nothing is."""
    tool = tools.get(name)
    if tool is None:
        return f"There is no tool {name!r}. The tools are: {', '.join(tools)}."
    missing = [p for p in tool.required if arguments.get(p) is None]
    if missing:
        return f"{name} needs {', '.join(missing)}."
    for key, value in arguments.items():
        wanted = tool.parameters.get(key, {}).get("type")
        if wanted is None:
            return f"{name} takes no {key!r}; it takes {', '.join(tool.parameters) or 'nothing'}."
        if value is not None and not isinstance(value, _TYPES[wanted]):
            return f"{name}: {key} must be of type {wanted}, not {type(value).__name__}."
    return ""


_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "array": list}


def _refusal(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if not error.filename:
        return f"It could not be carried out: {error.strerror or error}."
    place = place_of(error.filename)
    name = cut_line(place if place.isprintable() else ascii(place), 100)
    said = {
        errno.ENOENT: f"There is no file {name}.",
        errno.EISDIR: f"{WORKDIR if place == '.' else name} is a directory; list it with run.",
        errno.ENOTDIR: f"{name}: a part of this path is a file, not a directory.",
    }.get(error.errno or 0, f"{name}: {error.strerror}.")
    return f"{said} It lies outside of the repository ({WORKDIR})." if place.startswith("/") else said


async def nearest(box: Toolbox, path: str) -> str:
    """A sentence that names the paths of the base which were most likely meant by one that is not there, or nothing."""
    listing = [*_BASE, "ls-tree", "-r", "-t", "-z", "--name-only", "HEAD"]
    listed = await box.sandbox.exec(listing, timeout=60.0, output_bytes=4_000_000)
    paths = listed.stdout.decode("utf-8", "replace").rstrip("\0").split("\0")
    same = [each for each in paths if posixpath.basename(each) == posixpath.basename(path)]
    close = same or await asyncio.to_thread(difflib.get_close_matches, path, paths, 3, 0.7)
    return f" Nearest are: {', '.join(close[:5])}." if any(close) and path not in paths else ""


def place_of(path: str) -> str:
    """A path as the trees of a trace have it: relative to the repository, absolute outside of it; "." for its root."""
    place = "/" + posixpath.normpath(posixpath.join(WORKDIR, path)).lstrip("/")
    return "." if place == WORKDIR else place.removeprefix(WORKDIR + "/")


def _file(arguments: Json) -> str:
    path = str(arguments["path"])
    if not path.strip():
        raise ToolRefused("path is empty; name a file.")
    if path.endswith("/"):
        raise ToolRefused(f"{path} names a directory, not a file.")
    return place_of(path)


async def _text_of(box: Toolbox, path: str) -> str:
    return (await box.sandbox.read(path)).decode("utf-8", "surrogateescape")


async def _text_if_any(box: Toolbox, path: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return await _text_of(box, path)
    return None


async def _write_text(box: Toolbox, path: str, old: str | None, new: str) -> str:
    """Write a file and remember what it held; the change as a diff. Where that fails the file is left as it was."""
    if any(path == witness.path for witness in box.recorded()):
        raise ToolRefused(f"{path} is a recorded witness test: to change it, record it again with witness.")
    if path in box.given:
        raise ToolRefused(f"{path} holds the given test, which stays as it is: change the code that it is about.")
    before = None if old is None else old.encode("utf-8", "surrogateescape")
    try:
        await box.sandbox.write(path, new.encode("utf-8", "surrogateescape"))
    except OSError:
        if before is not None:
            with contextlib.suppress(OSError):
                await box.sandbox.write(path, before)
        raise
    box.keep(path, before)
    return unified_diff(path, old or "", new)


def unified_diff(path: str, old: str, new: str) -> str:
    """The change as a short unified diff for people (the attempt's patch is taken by the harness, not from this)."""
    before, after = lines_of(shown(old)), lines_of(shown(new))
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", n=2)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


async def _read(box: Toolbox, arguments: Json) -> Change:
    path = _file(arguments)
    lines = [line.removesuffix("\n") for line in lines_of(shown(await _text_of(box, path)))]
    if not lines:
        return Change(f"{path} is empty.")
    start, end = arguments.get("start"), arguments.get("end")
    if arguments.get("symbol"):
        start, end = _span(path, "\n".join(lines), arguments["symbol"])
    first = max(1, start or 1)
    last = min(len(lines), end or first + READ_LINES - 1)
    if first > len(lines):
        raise ToolRefused(f"{path} has {len(lines)} lines; there is no line {first}.")
    if last < first:
        raise ToolRefused(f"end={last} lies before start={first}.")
    body = fitting([f"{n:>5} {cut_line(lines[n - 1], RESULT_CHARS)}" for n in range(first, last + 1)], RESULT_CHARS)
    after, more = first + len(body), ""
    if after <= last:
        span = f"lines {after}–{last}" if after < last else f"line {last}"
        more = f"\n({span} left out; ask with start={after})"
    elif last < len(lines) and end is None:
        more = f"\n({len(lines) - last} more lines; ask with start={after})"
    return Change("\n".join(body) + more)


def _span(path: str, text: str, symbol: str) -> tuple[int, int]:
    """First and last line of a function, class or method, by its qualified name or the end of that."""
    tree = parsed(text)
    if tree is None:
        raise ToolRefused(f"{path} cannot be parsed as Python; read it by its lines.")
    known = spans(tree)
    found = [n for n in known if n == symbol] or [n for n in known if n.endswith(f".{symbol}")]
    if len(found) != 1:
        there = found or difflib.get_close_matches(symbol, known, 5, 0.5) or list(known)[:20]
        raise ToolRefused(f"{path} has {len(found) or 'no'} {symbol}; it has: {', '.join(there) or 'no definition'}.")
    return known[found[0]]


async def _search(box: Toolbox, arguments: Json) -> Change:
    pattern, path = arguments["pattern"], arguments.get("path") or "."
    done, note = await _grep(box, "-nIE", pattern, path), ""
    if done.exit_code and _SPECIAL.search(pattern):  # such as `f(`
        plain = await _grep(box, "-nIF", pattern, path)
        if plain.exit_code == 0 or done.exit_code > 1:
            why = "as an expression it matches nothing" if done.exit_code == 1 else "it is no regular expression"
            done, note = plain, f"\n(taken as plain text: {why})"
    if done.exit_code == 1:
        if (await box.sandbox.exec(["test", "-e", path], timeout=60.0)).exit_code == 1:
            raise FileNotFoundError(errno.ENOENT, "", path)
        return Change(f"No match.{note}")
    if done.exit_code != 0:
        raise ToolRefused(f"The search failed: {done.stderr.decode('utf-8', 'replace').strip()[:500]}")
    hits = [cut_line(hit.rstrip("\r\n"), HIT_CHARS) for hit in lines_of(done.stdout.decode("utf-8", "replace"))]
    body = fitting(hits[:SEARCH_HITS], RESULT_CHARS)
    more = f"{len(hits) - len(body)}{' or more' if done.truncated else ''} more"
    rest = f"\n({more}; narrow the pattern or the path)" if len(body) < len(hits) else ""
    return Change("\n".join(body) + rest + note)


_SPECIAL = re.compile(r"[][\\^$.|?*+(){}]")


async def _grep(box: Toolbox, how: str, pattern: str, path: str) -> Exec:
    command = ["git", "grep", "--no-index", "--exclude-standard", how, "--no-color", "-e", pattern, "--", path]
    done = await box.sandbox.exec(command, timeout=60.0)
    box.command_seconds += done.seconds
    if done.timed_out:
        raise ToolRefused("The search was stopped after 60 s; narrow the pattern or the path.")
    return done


async def _edit(box: Toolbox, arguments: Json) -> Change:
    path, old, new = _file(arguments), shown(arguments["old"]), shown(arguments["new"])
    text = await _text_of(box, path)
    if not old:
        raise ToolRefused("old is empty; to make a file use create, to add lines use insert.")
    if old == new:
        raise ToolRefused("old and new are the same text; nothing would change.")
    seen = shown(text)
    # Overlapping ones count: which of them is meant cannot be told.
    places = [found.start() for found in re.finditer(f"(?={re.escape(old)})", seen)]
    if not places:
        raise ToolRefused(_not_there(path, seen, old))
    if len(places) > 1:
        at = [seen.count("\n", 0, place) + 1 for place in places]
        if at.count(arguments.get("line") or 0) != 1:
            where = f"{len(places)} times in {path} (lines {', '.join(map(str, at[:20]))})"
            raise ToolRefused(f"old stands {where}. Give more of the text around it, or the line.")
        places = [places[at.index(arguments["line"])]]
    diff = await _write_text(box, path, text, replaced(text, places[0], old, new))
    return Change(f"Edited {path}:\n{diff}", diff)


def _not_there(path: str, text: str, old: str) -> str:
    """Why `old` was not found: the same text with other white space, or the lines most like its first line."""
    lines = text.split("\n")
    wanted = [line.strip() for line in old.strip("\n").split("\n")]
    stripped = [line.strip() for line in lines]
    for at in range(len(lines) - len(wanted) + 1):
        if stripped[at : at + len(wanted)] == wanted:
            there = "\n".join(lines[at : at + len(wanted)])
            return f"old is not in {path} to the letter; with other white space it stands at line {at + 1}:\n{there}"
    first = next((line for line in wanted if line), "")
    close = difflib.get_close_matches(first, dict.fromkeys(filter(None, stripped)), n=3, cutoff=0.6)
    if not close:
        return f"old is not in {path}. Read the part that you mean to change first."
    found = "\n".join(f"{stripped.index(line) + 1:>5} {lines[stripped.index(line)]}" for line in close)
    return f"old is not in {path}. The lines most like its first line are:\n{found}"


async def _create(box: Toolbox, arguments: Json) -> Change:
    path, content = _file(arguments), arguments["content"]
    before = await _text_if_any(box, path)
    after = content if before is None else replaced(before, 0, shown(before), content)
    diff = await _write_text(box, path, before, after)
    return Change(f"{'Wrote over' if before is not None else 'Created'} {path}.", diff)


async def _insert(box: Toolbox, arguments: Json) -> Change:
    path, line = _file(arguments), arguments["line"]
    text = await _text_of(box, path)
    lines = lines_of(shown(text))
    if not 0 <= line <= len(lines):
        raise ToolRefused(f"{path} has {len(lines)} lines; line must be 0 to {len(lines)}.")
    added = shown(arguments["text"]).removesuffix("\n")
    ended = not line or lines[line - 1].endswith("\n")  # the last line of a file may not be
    after = replaced(text, sum(map(len, lines[:line])), "", f"{added}\n" if ended else f"\n{added}")
    diff = await _write_text(box, path, text, after)
    return Change(f"Inserted into {path}:\n{diff}", diff)


async def _undo(box: Toolbox, arguments: Json) -> Change:
    if not box.undo:
        raise ToolRefused("There is no edit to undo; what run changed is not kept.")
    diffs, done = [], []
    for path, content in box.undo.items():
        now = await _text_if_any(box, path)
        if content is not None:
            await box.sandbox.write(path, content, mode=await _base_mode(box, path) if now is None else None)
        elif (gone := await box.sandbox.exec(["rm", "-f", "--", path], timeout=30.0)).exit_code:
            raise ToolRefused(f"{path} could not be removed: {gone.output.strip()}")
        done.append(f"{'Removed' if content is None else 'Put back'} {path}.")
        diffs.append(unified_diff(path, now or "", (content or b"").decode("utf-8", "surrogateescape")))
    box.undo.clear()
    return Change(" ".join(done), "".join(diffs))


async def _base_mode(box: Toolbox, path: str) -> int | None:
    """The mode that a file which is gone gets when it is put back; None: that of any new file."""
    listed = await box.sandbox.exec([*_BASE, "ls-tree", "HEAD", "--", path], timeout=30.0)
    return 0o755 if listed.stdout.startswith(b"100755 ") else None


_SECONDS = re.compile(r"\b\d+\.\d+ ?s\b")


async def _shell(box: Toolbox, arguments: Json) -> Change:
    timeout = min(arguments.get("timeout") or box.command_timeout, 4 * box.command_timeout)
    done = await box.sandbox.exec(arguments["command"], timeout=timeout, merge=True)
    box.command_seconds += done.seconds
    if not arguments.get("compare") or box.unchanged is None:
        return Change(_ran(done, timeout, RESULT_CHARS))
    bare = await box.unchanged.run(arguments["command"], await _beside(box, arguments["command"]), timeout)
    box.command_seconds += bare.seconds
    here, there = (_ran(each, timeout, RESULT_CHARS // 2) for each in (done, bare))
    differs = f"another in (- without, + with)\n{unified_diff('output', there, here).partition('@@')[2].strip()}"
    same = _SECONDS.sub("", here) == _SECONDS.sub("", there)
    return Change(f"{here}\n\nWithout your changes: {'the same.' if same else min(there, differs, key=len)}")


def _ran(done: Exec, timeout: float, longest: int) -> str:
    status = f"timed out after {timeout:g} s" if done.timed_out else f"exit code {done.exit_code}"
    output = cut_middle(done.output, longest).rstrip()
    return f"{output}\n({status})" if output else f"({status})"


async def _beside(box: Toolbox, command: str) -> dict[str, bytes]:
    """What a command may need on the unchanged code: new files of the tree, and those below /tmp that it names."""
    new = [change.path for change in Patch(await take_patch(box.sandbox)).changes if change.kind == "added"]
    files: dict[str, bytes] = {}
    for path in (*new, *re.findall(r"/tmp/[\w./-]+", command)):
        with contextlib.suppress(OSError, ValueError):
            files[path] = await box.sandbox.read(path)
    return files


async def _diff(box: Toolbox, arguments: Json) -> Change:
    diff = await box.patch(())
    if not diff:
        return Change("Nothing is changed, witness tests apart.")
    if wanted := arguments.get("path"):
        place = place_of(wanted)
        parts = re.split(r"^(?=diff --git )", diff, flags=re.MULTILINE)
        diff = "".join(part for part in parts if any(f"{p}/".startswith(f"{place}/") for p in Patch(part).paths))
    return Change(f"{stat(diff)}\n{cut_middle(shown(diff), RESULT_CHARS - NOTE_CHARS)}")


def stat(diff: str) -> str:
    """How much a patch changes, in a line."""
    files = Patch(diff).files
    named = [f"{each.path} +{each.added} -{each.removed}" for each in files[:8]]
    return f"{len(files)} file{'s' * (len(files) != 1)}: {', '.join(named)}{', …' * (len(files) > 8)}"


async def _witness(box: Toolbox, arguments: Json) -> Change:
    path = place_of_new_test(arguments["path"].removeprefix(WORKDIR + "/"))
    if not path:
        raise ToolRefused(
            "path must be a new file inside the repository, named as a test is: tests/test_issue.py (whatever others "
            "are called there), x_test.go, tests/x.rs, x.test.js; and none that is loaded without being asked for."
        )
    if (await box.sandbox.exec([*_BASE, "cat-file", "-e", f"HEAD:{path}"], timeout=30.0)).exit_code == 0:
        raise ToolRefused(f"{path} belongs to the repository; choose a new file name for the witness test.")
    text = arguments["content"]
    before = next((witness.text for witness in box.recorded() if witness.path == path), None)
    changed = bool(await box.patch([path]))
    await box.sandbox.write(path, text.encode())
    now = await box.new_test(path)
    base = await box.unchanged.new_test(path, text) if changed and box.unchanged else now
    counts, said = witness_words(base, now if changed else None)
    if not counts:
        await box.sandbox.exec(["rm", "-f", "--", path], timeout=30.0)
        if before is not None:
            await box.sandbox.write(path, before.encode())
        raise ToolRefused(f"{path} is not recorded. {said}")
    box.witnesses.append(WitnessTest(box.attempt, path, text, failure=said[:1500]))
    if own := sorted(guesses(text, box.statement)):
        words = ", ".join(own[:3])
        said += f"\n(It asserts {words}, which neither the issue nor its input has: every right fix must give that.)"
    return Change(f"Recorded {path}. {said}")


async def _elsewhere(box: Toolbox, arguments: Json) -> Change:
    raise AssertionError("carried out by the attempt's graph")


_USES: dict[str, Callable[[Toolbox, Json], Awaitable[Change]]] = {
    **{"read": _read, "search": _search, "edit": _edit, "create": _create, "insert": _insert, "undo": _undo},
    **{"diff": _diff, "run": _shell, "test": _elsewhere, "witness": _witness, "submit": _elsewhere},
}
_LIMITS = {"READ_LINES": READ_LINES, "RESULT_CHARS": RESULT_CHARS, "SEARCH_HITS": SEARCH_HITS}


def _tool(name: str, facts: Json) -> Tool:
    """A tool by its table in prompts/tools.toml, which has the words of others by ours."""
    words = {other: ours for ours, others in facts.pop("words", {}).items() for other in others}
    description = facts.pop("description").format_map(_LIMITS)
    return Tool(name=name, description=description, use=_USES[name], words=words, **facts)


_FACTS = (Path(__file__).parent / "prompts" / "tools.toml").read_text(encoding="utf-8")
TOOLS: dict[str, Tool] = {name: _tool(name, facts) for name, facts in tomllib.loads(_FACTS).items()}
