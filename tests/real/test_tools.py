"""What a model may ask for, tried in real sandboxes: every answer is one that it can go on from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from agent.attempt.graph import Desk, Rules, restore
from agent.attempt.notebook import Notebook
from agent.attempt.policy import ToolCall
from agent.attempt.tools import RESULT_CHARS, TOOLS, Toolbox, use_tool
from harness import trace
from harness.records import FileState, TestReport, Tree
from harness.sandbox.base import TROOPDIR, WORKDIR, Provider, Sandbox, SandboxSpec
from tasks.task import Repository, Task

BASE = (
    f"cd {WORKDIR} && git init -q && git add -A && git -c user.name=t -c user.email=t@t commit -qm base"
    f" && mkdir -p {TROOPDIR} && mv .git {TROOPDIR}/base.git"
)


@dataclass(frozen=True)
class Bench:
    """A sandbox and the toolbox of an attempt in it."""

    sandbox: Sandbox
    box: Toolbox

    async def ask(self, name: str, **arguments: object) -> trace.ToolRan:
        return await use_tool(self.box, ToolCall("c", name, arguments))

    async def turn(self, name: str, **arguments: object) -> trace.ToolRan:
        """The only call of a turn, which is carried out."""
        self.box.begin_turn()
        result = await self.ask(name, **arguments)
        assert result.ok, result.result
        return result


async def failing(path: str) -> tuple[TestReport, str]:
    """A new test file that fails, as it should; how it is run is for tests/real/test_runners.py."""
    return TestReport({f"{path}::test_it": "failed"}, 1, False, True, 0.1), "failed"


async def untouched(without: Sequence[str]) -> str:
    """The patch of an attempt that has changed nothing."""
    return ""


def on_bench(provider: Provider, scenario: Callable[[Bench], Awaitable[None]], **files: bytes) -> None:
    """Play a scenario in a fresh sandbox that holds the files (`__` in a name stands for a point)."""

    async def play() -> None:
        sandbox = await provider.create(SandboxSpec("tools", "box"))
        try:
            for name, content in files.items():
                await sandbox.write(name.replace("__", "."), content)
            box = Toolbox(sandbox, 0, 60.0, failing, untouched, cast("Any", None), "It is wrong.", list)
            await scenario(Bench(sandbox, box))
        finally:
            await sandbox.close()

    asyncio.run(play())


def test_what_the_system_objects_to_is_an_answer(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        made = await bench.sandbox.exec("mkdir d && ln -s loop loop && mkfifo pipe && touch shut && chmod 0 shut")
        assert made.exit_code == 0
        answers = {
            "/dev/null": "/dev/null: Not a regular file. It lies outside of the repository (/testbed).",
            "pipe": "pipe: Not a regular file.",
            "x" * 300: "File name too long.",
            "loop": "loop: Too many levels of symbolic links.",
            "loop/x": "loop/x: ",
            "a\0b": r"'a\x00b': embedded null byte.",
            "d": "d is a directory; list it with run.",
            "d/": "d/ names a directory",
            ".": "/testbed is a directory",
            "": "path is empty",
            "/": "/ names a directory",
            "pipe/x": "pipe/x: a part of this path is a file",
            "sub/../../etc": "/etc is a directory; list it with run. It lies outside of the repository (/testbed).",
            "\ud800": "surrogates not allowed",
        }
        for path, said in answers.items():
            for name, more in (
                ("read", {}),
                ("edit", {"old": "a", "new": "b"}),
                ("insert", {"line": 0, "text": "x"}),
                ("create", {"content": "x"}),
            ):
                result = await bench.ask(name, path=path, **more)
                assert not result.ok and said in result.result, (name, path, result.result)
        result = await bench.ask("read", path="gone.py")
        assert not result.ok and result.result == "There is no file gone.py."
        if (await bench.sandbox.exec("cat shut")).exit_code:
            result = await bench.ask("read", path="shut")
            assert result.result == "shut: Permission denied."
        for command in ("a\0b", "\ud800"):
            said = (await bench.ask("run", command=command)).result
            assert said and "no file" not in said
        assert not (await bench.ask("search", pattern="a\0b")).ok
        assert (await bench.ask("run", command="true", timeout=10**400)).ok

    on_bench(provider, scenario)


def test_a_write_that_fails_leaves_the_file_and_what_undo_knows(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.turn("edit", path="a.py", old="1", new="2")
        await bench.sandbox.exec("mkdir d && touch d/f && chmod 0444 d/f && chmod 0555 d")
        if (await bench.sandbox.exec("echo x > d/f")).exit_code == 0:
            await bench.sandbox.exec("chmod 0755 d && rm d/f")
            pytest.skip("modes keep nobody out of a file here")
        bench.box.begin_turn()
        result = await bench.ask("create", path="d/f", content="x")
        assert not result.ok and result.result == "d/f: Permission denied."
        assert (await bench.turn("undo")).result == "Put back a.py."
        assert await bench.sandbox.read("a.py") == b"x = 1\n"

    on_bench(provider, scenario, a__py=b"x = 1\n")


def test_a_long_range_is_read_in_whole_numbered_lines(provider: Provider) -> None:
    text = "".join(f"value_{n} = {n}  # {'x' * 40}\n" for n in range(1, 801))

    async def scenario(bench: Bench) -> None:
        told = TOOLS["read"].description
        assert "250 lines" in told and f"{RESULT_CHARS:,} characters" in told
        lines: list[str] = []
        start = 300
        while start <= 764:
            answer = (await bench.ask("read", path="big.py", start=start, end=764)).result
            assert len(answer) < RESULT_CHARS + 100
            shown, _, note = answer.partition("\n(")
            lines += shown.split("\n")
            start += shown.count("\n") + 1
            assert note == (f"lines {start}–764 left out; ask with start={start})" if start <= 764 else "")
        assert lines == [f"{n:>5} {line}" for n, line in enumerate(text.split("\n"), 1) if 300 <= n <= 764]
        assert (await bench.ask("read", path="big.py")).result.count("\n") < 250
        result = await bench.ask("read", path="big.py", start=30, end=20)
        assert not result.ok and "lies before" in result.result
        assert "has 800 lines" in (await bench.ask("read", path="big.py", start=801)).result

    on_bench(provider, scenario, big__py=text.encode())


def test_a_line_beyond_the_limit_is_cut_and_said_to_be(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        first = (await bench.ask("read", path="min.js")).result
        assert first == "    1 a\n(lines 2–3 left out; ask with start=2)"
        second = (await bench.ask("read", path="min.js", start=2)).result
        assert (
            second.startswith("    2 xxx") and f"[... {50_000 - RESULT_CHARS} more characters in this line]" in second
        )
        assert second.endswith("\n(line 3 left out; ask with start=3)")
        hit = (await bench.ask("search", pattern="x")).result
        assert hit.startswith("min.js:2:xxx") and "more characters in this line]" in hit and len(hit) < 400

    on_bench(provider, scenario, min__js=b"a\n" + b"x" * 50_000 + b"\nb\n")


def test_many_hits_are_whole_lines_and_the_rest_is_counted(provider: Provider) -> None:
    text = "".join(f"def f{n}(): {'y' * 250}\n" for n in range(500))

    async def scenario(bench: Bench) -> None:
        answer = (await bench.ask("search", pattern="def")).result
        *hits, note = answer.split("\n")
        assert all(hit.startswith("big.py:") and hit.endswith("y") for hit in hits) and len(answer) < RESULT_CHARS + 100
        assert note == f"({500 - len(hits)} more; narrow the pattern or the path)"
        assert (await bench.ask("search", pattern="page")).result == "feed.txt:1:one\fpage\u2028two"

    on_bench(provider, scenario, big__py=text.encode(), feed__txt="one\fpage\u2028two\r\n".encode())


def test_what_a_command_prints_keeps_its_indentation(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.ask("run", command="printf '    a\\n  b\\n'")).result == "    a\n  b\n(exit code 0)"
        assert (await bench.ask("run", command="true")).result == "(exit code 0)"
        answer = (await bench.ask("run", command="seq 100000")).result
        assert "\n[... " in answer and " left out ...]\n" in answer and answer.endswith("\n100000\n(exit code 0)")

    on_bench(provider, scenario)


def test_lines_are_counted_alike_by_all_tools(provider: Provider) -> None:
    text = "one\n\ftwo\x0b\x85\u2028half\rthree\nfour\n"

    async def scenario(bench: Bench) -> None:
        answer = (await bench.ask("read", path="a.txt")).result
        assert answer.split("\n")[-1] == "    3 four"
        await bench.turn("insert", path="a.txt", line=2, text="new")
        assert await bench.sandbox.read("a.txt") == text.replace("four", "new\nfour").encode()
        result = await bench.ask("insert", path="a.txt", line=9, text="new")
        assert "has 4 lines" in result.result

    on_bench(provider, scenario, a__txt=text.encode())


def test_files_keep_their_line_ends(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        async def now(path: str) -> bytes:
            return await bench.sandbox.read(path)

        result = await bench.turn(
            "edit", path="dos.py", old="def f():\n    return 1\n", new="def f():\n    x = 1\n    return x\n"
        )
        assert "\r" not in result.result
        assert await now("dos.py") == b"def f():\r\n    x = 1\r\n    return x\r\n\r\ny = 2"
        await bench.turn("insert", path="dos.py", line=5, text="z = 3\n")
        assert (await now("dos.py")).endswith(b"\r\n\r\ny = 2\r\nz = 3")
        await bench.turn("insert", path="dos.py", line=0, text="# a\r\n# b")
        assert (await now("dos.py")).startswith(b"# a\r\n# b\r\ndef f")
        await bench.turn("create", path="dos.py", content="a\nb\n")
        assert await now("dos.py") == b"a\r\nb\r\n"
        await bench.turn("edit", path="mixed.py", old="b\nc", new="b\nnew\nc")
        assert await now("mixed.py") == b"a\r\nb\nnew\nc\r\nd\n"
        await bench.turn("edit", path="latin.py", old="x = 1", new="x = 2")
        assert await now("latin.py") == b"# caf\xe9\nx = 2"
        assert "caf\ufffd" in (await bench.ask("read", path="latin.py")).result

    files = {
        "dos__py": b"def f():\r\n    return 1\r\n\r\ny = 2",
        "mixed__py": b"a\r\nb\nc\r\nd\n",
        "latin__py": b"# caf\xe9\nx = 1",
    }
    on_bench(provider, scenario, **files)


def test_undo_puts_back_what_a_command_has_removed(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        done = await bench.sandbox.exec(f"chmod +x tool.sh && {BASE}")
        assert done.exit_code == 0, done.output
        bench.box.begin_turn()
        for path in ("tool.sh", "./sub/../a.py", f"{WORKDIR}/new.py"):
            assert (await bench.ask("create", path=path, content="changed\n")).ok
        await bench.turn("run", command="rm tool.sh a.py")
        result = await bench.turn("undo")
        assert result.result == "Put back tool.sh. Put back a.py. Removed new.py."
        seen = await bench.sandbox.exec("cat tool.sh a.py; test -x tool.sh && ls")
        assert seen.output == "echo\nx = 1\na.py\ntool.sh\n"

    on_bench(provider, scenario, tool__sh=b"echo\n", a__py=b"x = 1\n")


def test_undo_after_a_resume_gives_back_what_set_up_had_made(provider: Provider) -> None:
    calls = ({"id": "c", "name": "edit", "arguments": {"path": f"{WORKDIR}/made.py", "old": "1", "new": "2"}},)
    events: list[trace.Event] = [
        trace.Planned(attempt=0, text=""),
        trace.Decided(attempt=0, turn=1, text="", calls=calls),
        trace.ToolRan(attempt=0, turn=1, call="c", name="edit", result="done"),
        trace.TreeChanged(attempt=0, turn=1, tree=Tree((FileState("made.py", b"x = 2\n"),))),
        trace.TurnEnded(attempt=0, turn=1, seconds=0.1),
    ]

    async def scenario(bench: Bench) -> None:
        notebook, unused = Notebook.of(0, events), cast("Any", None)
        rules = Rules(turns=9, command_timeout=9.0, test_timeout=9.0, malformed=9)
        desk = Desk(
            Task("t", Repository("path", "/r"), ""),
            unused,
            unused,
            bench.sandbox,
            notebook,
            rules,
            0,
            unused,
            unused,
            unused,
            unused,
        )
        assert (await restore(desk))["turn"] == 1
        assert await bench.sandbox.read("made.py") == b"x = 2\n"
        assert (await use_tool(desk.box, ToolCall("c", "undo", {}))).result == "Put back made.py."
        assert await bench.sandbox.read("made.py") == b"x = 1\n"

    on_bench(provider, scenario, made__py=b"x = 1\n")


def test_a_witness_is_a_new_test_where_one_may_lie(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        done = await bench.sandbox.exec(BASE)
        assert done.exit_code == 0, done.output
        text = "def test_it():\n    assert 0\n"
        for path in (
            "conftest.py",
            "pytest.py",
            "a/../test_x.py",
            "../test_x.py",
            "/tmp/test_x.py",
            "_pytest/test_x.py",
            "",
        ):
            result = await bench.ask("witness", path=path, content=text)
            assert not result.ok and "named as a test is: tests/test_issue.py" in result.result
        assert "belongs to the repository" in (await bench.ask("witness", path="test_a.py", content=text)).result
        assert not bench.box.witnesses
        assert (await bench.ask("witness", path=f"{WORKDIR}/tests/test_x.py", content=text)).ok
        assert [w.path for w in bench.box.witnesses] == ["tests/test_x.py"]

    on_bench(provider, scenario, test_a__py=b"")


def test_a_pattern_that_is_none_or_finds_nothing_is_taken_as_plain_text(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.ask("search", pattern="f(")).result == (
            "a.py:1:def f(x): return g(x)\n(taken as plain text: it is no regular expression)"
        )
        assert (await bench.ask("search", pattern="g(x)")).result.endswith(
            "(taken as plain text: as an expression it matches nothing)"
        )
        assert (await bench.ask("search", pattern="d.f f.x")).result == "a.py:1:def f(x): return g(x)"
        assert (await bench.ask("search", pattern="(nothing|none)")).result == "No match."

    on_bench(provider, scenario, a__py=b"def f(x): return g(x)\n")


def test_a_path_that_is_not_there_is_answered_with_the_nearest_that_are(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        done = await bench.sandbox.exec(f"mkdir -p src/pkg && mv core.py src/pkg/ && {BASE}")
        assert done.exit_code == 0, done.output
        for name, more in (("read", {}), ("search", {"pattern": "x"}), ("edit", {"old": "a", "new": "b"})):
            result = await bench.ask(name, path="pkg/core.py", **more)
            assert not result.ok and result.result == "There is no file pkg/core.py. Nearest are: src/pkg/core.py."
        assert "Nearest are: src/pkg/core.py." in (await bench.ask("read", path="src/pkg/cores.py")).result
        assert (await bench.ask("read", path="zzz")).result == "There is no file zzz."

    on_bench(provider, scenario, core__py=b"x = 1\n")


def test_a_definition_is_read_by_its_name(provider: Provider) -> None:
    text = b"class A:\n    @property\n    def x(self):\n        return 1\n\n    @x.setter\n    def x(self, v): ...\n\n\ndef f():\n    pass\n\n\nclass B:\n    def g(self): ...\n    def f(self): ...\n"

    async def scenario(bench: Bench) -> None:
        async def lines(symbol: str) -> list[int]:
            told = (await bench.turn("read", path="a.py", symbol=symbol)).result.split("\n(")[0]
            return [int(line[:5]) for line in told.split("\n")]

        assert await lines("A.x") == await lines("x") == [2, 3, 4, 5, 6, 7]
        assert await lines("f") == [10, 11] and await lines("B.f") == [16]
        assert (await bench.ask("read", path="a.py", symbol="B.gg")).result == "a.py has no B.gg; it has: B.g, B.f."
        assert "cannot be parsed as Python" in (await bench.ask("read", path="b.txt", symbol="f")).result

    on_bench(provider, scenario, a__py=text, b__txt=b"def (\n")


def test_lines_that_are_alike_are_named_once(provider: Provider) -> None:
    async def scenario(bench: Bench) -> None:
        told = (await bench.ask("edit", path="a.py", old="return self.valeu", new="x")).result
        assert told.count("return self.value") == 1

    on_bench(provider, scenario, a__py=b"def f(self):\n    return self.value\n" * 3)
