"""Help, completion, and what a mistyped word may have meant."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import COMMANDS
from tests.support.command_line import TROOP, troop


def options(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w[^,]*, )?(--[a-z-]+)", text, re.MULTILINE))


def test_help_shows_the_ten_options_that_people_use_and_help_all_the_rest() -> None:
    few, every = troop("solve", "--help", COLUMNS="80").stdout, troop("solve", "--help-all", COLUMNS="80").stdout
    assert options(few) - {"--help", "--help-all"} == {
        *("--issue", "--issue-text", "--failing-test", "--test-command", "--model", "--attempts", "--max-usd"),
        *("--dry-run", "--apply", "--pr"),
    }
    assert len(options(every)) > 40 and options(few) < options(every)
    assert len(few.splitlines()) <= 50
    for command in ("eval", "grade", "report", "select"):
        few, every = troop(command, "--help").stdout, troop(command, "--help-all").stdout
        assert 5 < len(options(few)) <= 12 < len(options(every)), command
    assert troop("runs", "--help").stdout == troop("runs", "--help-all").stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `troop completion` prints, by shell."""
    found = {shell: tmp_path_factory.mktemp("completion") / shell for shell in ("bash", "zsh", "fish")}
    for shell, place in found.items():
        done = troop("completion", shell)
        assert done.returncode == 0, done.stderr
        place.write_text(done.stdout)
    return found


def test_every_shell_gets_all_commands_and_options(scripts: dict[str, Path]) -> None:
    for shell, place in scripts.items():
        text = place.read_text()
        for word in (*COMMANDS, "max-usd", "tell-cost", "older-than", "help-all"):
            assert word in text, (shell, word)
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(place)], check=True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("troop", "re"), "report replay resume"),
        (("troop", "solve", "--max-u"), "--max-usd"),
        (("troop", "demo", "--until", "s"), "strong"),
        (("troop", "eval", "qu"), "quixbugs"),
        (("troop", "replay", "a-r"), "a-run"),
    ],
)
def test_bash_completes_by_what_is_printed_alone(
    words: tuple[str, ...], found: str, scripts: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "a-run").mkdir()
    script = f"""PATH=
    source {scripts["bash"]}
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _shtab_troop troop "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
    echo "${{COMPREPLY[*]}}" """
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-c", script, "-", *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(found.split()), done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("sovle",), "solve"),
        (("help", "replya"), "replay"),
        (("solve", ".", "--issue-txt", "x"), "--issue-text"),
        (("solve", ".", "--issue-text", "x", "--model", "reapir"), "repair"),
        (("solve", ".", "--issue-text", "x", "--model", "opnai/gpt-5-mini"), "openai/gpt-5-mini"),
        (("solve", ".", "--issue-text", "x", "--model", "my-qwem"), "my-qwen"),
    ],
)
def test_a_mistyped_word_is_met_with_what_it_is_most_like(words: tuple[str, ...], meant: str, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "troop.toml").write_text('[models.my-qwen]\nbase_url = "http://127.0.0.1:1/v1"\nname = "qwen"\n')
    done = troop(*words, cwd=tmp_path)
    assert done.returncode == 2 and f"did you mean {meant}?" in done.stderr


def test_what_goes_to_a_file_has_no_padding() -> None:
    done = subprocess.run([*TROOP, "doctor"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout and not re.search(r" $", done.stdout, re.MULTILINE)
