"""`troop doctor` and `troop init` as a new user meets them: real processes, real HTTP, a real terminal."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.commands.init_command import example
from agent.config import Config, load_config
from agent.defaults import SETTINGS
from tests.support.command_line import TROOP, troop
from tests.support.model_server import Answer, ModelServer, Request, error, serving

Json = dict[str, Any]
READS = [{"name": "read", "arguments": {"path": path}} for path in ("a.txt", "b.txt")]


def plain(request: Request) -> Answer:
    """A server that takes whatever it is sent and calls both tools at once."""
    body = request.body
    if body.get("stream"):
        chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}}
        lines = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, usage)) + "data: [DONE]\n\n"
        return Answer(raw=lines, headers={"Content-Type": "text/event-stream"})
    return Answer(tool_calls=READS) if "tools" in body and request.turn == 0 else Answer(text="ok")


def refusing(words: str, when: Callable[[Json], bool], status: int = 400) -> Callable[[Request], Answer]:
    """The same, but for requests of a kind."""
    return lambda request: error(status, words) if when(request.body) else plain(request)


def alias(server: ModelServer, more: str = "") -> str:
    return f'[models.m]   # mine\nbase_url = "{server.url}"\nname = "scripted"\n{more}'


def tried(cwd: Path, *more: str, name: str = "m", **env: str) -> Json:
    """What `doctor --model --json` tells of one model."""
    done = troop("doctor", "--model", name, "--json", *more, cwd=cwd, **env)
    assert "Traceback" not in done.stderr
    (told,) = json.loads(done.stdout)["models"]
    assert done.returncode == (0 if told["usable"] else 4), done.stderr
    return {**told, "by": {trial["tried"]: trial for trial in told["trials"]}, "stderr": done.stderr}


def test_about_ten_small_calls_tell_what_a_server_bears(tmp_path: Path) -> None:
    with serving(plain) as server:
        told = tried(tmp_path, name=server.url)
        bodies = [request.body for request in server.requests]
    assert len(bodies) == told["cost"]["calls"] <= 10
    usage = told["cost"]["usage"]
    assert usage["input"] + usage["output"] < 1500
    by = told["by"]
    assert by["tools"]["found"] == "called" and by["parallel calls"]["found"] == "2 calls in one answer"
    assert by["streaming"]["found"] == "taken, with usage" and by["usage told"]["found"] == "input, output"
    assert by["user after a result"]["found"] == by["two user turns"]["found"] == "taken"
    assert told["price"]["source"] == "unknown" and told["cost"]["exact"] is False
    assert tomllib.loads(told["troop_toml"])["models"] == {"scripted": {"base_url": server.url, "name": "scripted"}}
    assert not (tmp_path / "troop.toml").exists()
    results = [body for body in bodies if body["messages"][-1]["role"] == "tool"]
    assert results[0] == results[1], "the same prompt twice, for the cache"
    assert [m["tool_call_id"] for m in results[0]["messages"] if m["role"] == "tool"] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    ("words", "when", "row", "found", "setting"),
    [
        (
            "temperature is deprecated for this model",
            lambda body: "temperature" in body,
            "temperature",
            "refused (400: temperature is deprecated",
            {"sampling": {"temperature": False}},
        ),
        (
            "Extra inputs are not permitted: seed",
            lambda body: "seed" in body,
            "seed",
            "refused (400: Extra inputs",
            {"sampling": {"seed": False}},
        ),
        (
            "This model does not support tools",
            lambda body: "tools" in body,
            "tools",
            "refused (400: This model does not support tools)",
            {"tools": False},
        ),
        (
            "System role not supported",
            lambda body: body["messages"][0]["role"] == "system",
            "an answer",
            "after 400: System role not supported",
            {"system_role": False},
        ),
        (
            "This model only supports streaming: set stream",
            lambda body: not body.get("stream"),
            "streaming",
            "the only way",
            {"stream": True},
        ),
        (
            "This model's maximum context length is 32768 tokens, however you requested 10000020 tokens",
            lambda body: body.get("max_tokens", 0) > 32768,
            "context",
            "32,768 tokens (its refusal)",
            {"context": 32768},
        ),
        (
            "messages with role tool are not allowed here",
            lambda body: body["messages"][-1]["role"] == "tool",
            "tool results",
            "refused (400: messages with role tool",
            {"tools": False},
        ),
    ],
)
def test_what_is_refused_is_told_and_the_settings_that_work_are_written(
    words: str, when: Callable[[Json], bool], row: str, found: str, setting: Json, tmp_path: Path
) -> None:
    with serving(refusing(words, when)) as server:
        before = alias(server, "# the end\n")
        (tmp_path / "troop.toml").write_text(before)
        told = tried(tmp_path, "--write")
        assert found in told["by"][row]["found"]
        assert told["settings"] == setting and told["written"]
        after = (tmp_path / "troop.toml").read_text()
        assert after.startswith(before.splitlines()[0]) and "# the end" in after
        assert tomllib.loads(after)["models"]["m"] == {"base_url": server.url, "name": "scripted", **setting}
        first = len(server.requests)
        again = tried(tmp_path)
        refused = [r for r in server.requests[first:] if when(r.body)]
    assert again["settings"] == {} and again["usable"]
    assert not refused or "tools" in setting, "with these settings nothing is refused"


def test_what_troop_never_sends_is_asked_and_changes_no_setting(tmp_path: Path) -> None:
    def two_users(body: Json) -> bool:
        roles = [message["role"] for message in body["messages"]]
        return ("user", "user") in itertools.pairwise(roles) or roles[-2:] == ["tool", "user"]

    with serving(refusing("Conversation roles must alternate user/assistant", two_users, 500)) as server:
        told = tried(tmp_path, name=server.url)
    assert "refused (500: Conversation roles must alternate" in told["by"]["two user turns"]["found"]
    assert "refused" in told["by"]["user after a result"]["found"] and told["settings"] == {}
    assert told["by"]["streaming"]["found"] == "taken, with usage", "the trials after it speak as those before it"


def test_a_free_model_costs_nothing_and_the_alias_is_where_the_price_is_from(tmp_path: Path) -> None:
    with serving(plain) as server:
        (tmp_path / "troop.toml").write_text(alias(server, "usd_per_mtok_input = 0\nusd_per_mtok_output = 0\n"))
        told = tried(tmp_path)
        shown = troop("doctor", "--model", "m", cwd=tmp_path, COLUMNS="80").stdout
    assert (told["cost"]["usd"], told["price"]["source"]) == (0, "alias")
    assert "price: $0 in, $0 out per million tokens, from the alias" in shown
    assert "troop.toml says all that is needed" in shown and max(map(len, shown.splitlines())) <= 80


def test_an_alias_of_the_users_own_file_comes_whole_into_the_nearer_one(tmp_path: Path) -> None:
    with serving(refusing("no seed here", lambda body: "seed" in body)) as server:
        (tmp_path / "config" / "troop").mkdir(parents=True)
        users = tmp_path / "config" / "troop" / "config.toml"
        users.write_text(alias(server, "concurrency = 3\n[models.m.sampling]\ntop_p = 0.9\n"))
        told = tried(tmp_path, "--write", XDG_CONFIG_HOME=str(tmp_path / "config"))
        assert told["written"] and "mine" in users.read_text()
        near = tomllib.loads((tmp_path / "troop.toml").read_text())["models"]["m"]
    sampling = {"top_p": 0.9, "seed": False}
    assert near == {"base_url": server.url, "name": "scripted", "concurrency": 3, "sampling": sampling}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda request: error(401, "Incorrect API key"), "refused a call without a key"),
        (lambda request: error(404, "no such model"), "knows no model 'scripted'"),
        (lambda request: error(400, "the account is closed"), "refused the call for m (400: the account is closed)"),
        (lambda request: error(503, "busy"), "kept failing (2 tries"),
        (
            refusing("one turn only", lambda body: len(body["messages"]) > 2),
            "answers once, but refuses the next turn (400: one turn only)",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_one_sentence_and_nothing_is_written(
    script: Callable[[Request], Answer], said: str, tmp_path: Path
) -> None:
    with serving(script) as server:
        (tmp_path / "troop.toml").write_text(alias(server))
        told = tried(tmp_path, "--write")
        assert (tmp_path / "troop.toml").read_text() == alias(server)
    assert not told["usable"] and said in told["error"] and not told["written"]
    assert told["stderr"].strip().splitlines()[-1].startswith("troop: ") and said in told["stderr"]


def test_a_servers_words_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    words = "seed \x1b]0;title\x07 is \x1b[2J no parameter [bold]here[/bold]"
    with serving(refusing(words, lambda body: "seed" in body)) as server:
        shown = troop("doctor", "--model", server.url, cwd=tmp_path, COLUMNS="200").stdout
    assert "refused (400: seed is no parameter [bold]here[/bold])" in " ".join(shown.split())
    assert "\x1b" not in shown and "\x07" not in shown


def test_a_server_that_is_down_and_a_missing_key_end_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    began = time.monotonic()
    told = tried(tmp_path, name=f"http://127.0.0.1:{port}/v1#m")
    assert f"127.0.0.1:{port} cannot be reached" in told["error"] and time.monotonic() - began < 10
    told = tried(tmp_path, name="deepseek/deepseek-chat")
    assert "export DEEPSEEK_API_KEY=" in told["error"]


def test_several_models_are_told_of_in_one_document_and_one_that_fails_fails_the_command(tmp_path: Path) -> None:
    with serving(plain) as server:
        done = troop("doctor", "--json", "--model", server.url, "--model", "groq/x", cwd=tmp_path)
    assert [model["usable"] for model in json.loads(done.stdout)["models"]] == [True, False] and done.returncode == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--write"], "say which, by --model NAME"),
        (["--model", "qwn"], "unknown model 'qwn'"),
        (["--model", "repair"], "there is nothing to try out"),
        (["--modle", "x"], "did you mean --model?"),
        (["--model", "x", "--clean"], "one at a time"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = troop("doctor", *words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as held:
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_plain_doctor_looks_at_every_alias_free_of_charge_and_says_what_to_type(silent: str, tmp_path: Path) -> None:
    with serving(plain) as server, socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        held.close()
        (tmp_path / "troop.toml").write_text(
            'default_model = "good"\n[defaults]\nattempts = 8\n'
            f'[models.good]\nbase_url = "{server.url}"\nname = "scripted"\n'
            f'[models.other]\nbase_url = "{server.url}"\nname = "renamed"\n'
            f'[models.down]\nbase_url = "http://127.0.0.1:{port}/v1"\nname = "x"\n'
            f'[models.mute]\nbase_url = "{silent}"\nname = "x"\n'
            f'[models.silent]\nbase_url = "{silent}"\nname = "x"\n'
            '[models.keyless]\nmodel = "mistral/x"\n'
        )
        began = time.monotonic()
        done = troop("doctor", "--json", cwd=tmp_path, TROOP_MAX_USD="2")
        assert time.monotonic() - began < 5 + 15
        assert server.requests == []
    findings = json.loads(done.stdout)["findings"]
    found = {each["name"]: each for each in findings["models"]}
    assert list(found)[:2] == ["configuration", "good"] and found["good"]["ok"]
    fixes = {name: each["fix"] for name, each in found.items() if not each["ok"]}
    assert fixes == {
        "other": "troop doctor --model other tries a call",
        "down": "start the server, or correct base_url in [models.down]",
        "mute": "correct base_url in [models.mute]",
        "silent": "correct base_url in [models.silent]",
        "keyless": "export MISTRAL_API_KEY=...",
    }
    assert {each["name"]: each["detail"] for each in findings["settings"]} == {
        "attempts": "8, from troop.toml",
        "max_usd": "2.0, from TROOP_MAX_USD",
    }


def test_a_broken_configuration_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "troop.toml").write_text("[defaults]\nattemps = 3\n")
    found = json.loads(troop("doctor", "--json", cwd=tmp_path).stdout)["findings"]["models"]
    assert not found[0]["ok"] and "did you mean attempts?" in found[0]["detail"]
    done = troop("solve", ".", "--issue-text", "x", cwd=tmp_path)
    assert done.returncode == 2 and "troop.toml: unknown key defaults.attemps; did you mean attempts?" in done.stderr


class Terminal:
    """A process on a terminal of its own, 80 columns wide."""

    def __init__(self, *words: str, cwd: Path, **env: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        self.master, slave = pty.openpty()
        path = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [*TROOP, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            start_new_session=True,
            env={**kept, "PYTHONPATH": path, "XDG_CONFIG_HOME": "/nonexistent", "COLUMNS": "80", "TERM": "dumb", **env},
        )
        os.close(slave)
        self.seen, self.at = "", 0

    def until(self, words: str, *answer: str) -> None:
        """Wait until it has said the words, after those that were waited for before; then type."""
        end = time.monotonic() + 30
        while (found := " ".join(self.seen.split()).find(words, self.at)) < 0:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode()
        self.at = found + len(words)
        for line in answer:
            os.write(self.master, line.encode())

    def code(self) -> int:
        try:
            while select.select([self.master], [], [], 30)[0]:
                self.seen += os.read(self.master, 65536).decode()
        except OSError:
            pass  # the other side is closed
        os.close(self.master)
        return self.process.wait(30)


def test_init_asks_tries_one_call_and_writes(tmp_path: Path) -> None:
    with serving(plain) as server:
        terminal = Terminal("init", cwd=tmp_path, GROQ_API_KEY="k" * 20)
        terminal.until("Provider or URL (groq)", "nobody\n")
        terminal.until("neither a provider nor a URL")
        terminal.until("Provider or URL", f"{server.url}\n")
        terminal.until("Variable (none)", "gsk_1234567890\n")
        terminal.until("not to be typed here")
        terminal.until("Variable (none)", "\n")
        terminal.until("Model (its number, or any name)", "1\n")
        terminal.until("Write this to ./troop.toml?", "y\n")
        assert terminal.code() == 0, terminal.seen
        assert len(server.requests) == 1
    assert re.search(r"It answers in \d+\.\d s, \d+ tokens", terminal.seen)
    written = tomllib.loads((tmp_path / "troop.toml").read_text())
    alias = {"base_url": server.url, "name": "scripted"}
    assert written == {"default_model": "scripted", "models": {"scripted": alias}}


def test_init_adds_to_a_file_that_is_there_only_when_told_to(tmp_path: Path) -> None:
    before = 'default_model = "a"  # mine\n[models.a]\nmodel = "groq/a"\n'
    for last in "ny":
        (tmp_path / "troop.toml").write_text(before)
        terminal = Terminal("init", cwd=tmp_path)
        terminal.until("Provider or URL", "mistral\n")
        terminal.until("Variable (MISTRAL_API_KEY)", "MY_KEY\n")
        terminal.until("export MY_KEY=")
        terminal.until("Model", "some-model\n")
        terminal.until("in place of a?", "n\n")
        terminal.until("which is there already?", f"{last}\n")
        assert terminal.code() == 0
        after = (tmp_path / "troop.toml").read_text()
        added = '\n[models.some-model]\nmodel = "mistral/some-model"\nkey_env = "MY_KEY"\n'
        assert after == before + (added if last == "y" else "")


@pytest.mark.parametrize("how", ["interrupt", "end"])
@pytest.mark.parametrize("when", ["Provider or URL", "Variable"])
def test_init_ends_cleanly_with_nothing_written(how: str, when: str, tmp_path: Path) -> None:
    terminal = Terminal("init", cwd=tmp_path)
    if when == "Variable":
        terminal.until("Provider or URL", "mistral\n")
    terminal.until(when)
    if how == "interrupt":
        time.sleep(0.3)  # one that comes between the question and the waiting for its answer is heard after a key only
        terminal.process.send_signal(signal.SIGINT)
    else:
        os.write(terminal.master, b"\x04")
    assert terminal.code() == 130, terminal.seen
    assert "stopped; nothing was written" in terminal.seen and "Traceback" not in terminal.seen
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_init_prints_an_example_in_which_every_setting_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = troop("init", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == example() and not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    Path("troop.toml").write_text(done.stdout)
    assert load_config().aliases == Config().aliases and load_config().defaults == {}
    Path("troop.toml").write_text(re.sub(r"^# (?=\[|\w+ +?= )", "", done.stdout, flags=re.MULTILINE))
    config = load_config()
    assert set(config.defaults) == {setting.name for setting in SETTINGS} and config.default_model in config.aliases
