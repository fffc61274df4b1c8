"""Lasting choices: `[defaults]` in files and `TROOP_…` variables, against the command line and what is built in."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from agent.commands.options import add_options, settings_of
from agent.config import Settings, config_paths, load_config
from agent.defaults import SETTINGS
from harness.records import Budget
from harness.sandbox.base import Limits
from tasks.errors import InputError


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def solving(*words: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_options(parser, "tries", "caps", "choice", "progress")
    return settings_of(parser.parse_args(words))


def near(text: str) -> None:
    Path("troop.toml").write_text(text, encoding="utf-8")


def far(text: str) -> None:
    path = config_paths()[1]
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_without_any_choice_the_settings_are_the_built_in_ones() -> None:
    assert solving() == Settings()


def test_a_flag_wins_over_a_variable_over_the_near_file_over_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    far("[defaults]\nattempts = 2\nmax_usd = 2\nmax_turns = 2\nmemory = 2\n")
    near("[defaults]\nattempts = 3\nmax_usd = 3\nmax_turns = 3\n")
    monkeypatch.setenv("TROOP_ATTEMPTS", "4")
    monkeypatch.setenv("TROOP_MAX_USD", "4.5")
    settings = solving("-n", "5")
    budget = settings.budget
    assert (budget.attempts, budget.usd, budget.turns, settings.limits.memory_mb) == (5, 4.5, 3, 2)
    sources = {name: source for name, (_, source) in load_config().defaults.items()}
    assert sources == {
        "attempts": "TROOP_ATTEMPTS",
        "max_usd": "TROOP_MAX_USD",
        "max_turns": "troop.toml",
        "memory": str(config_paths()[1]),
    }


def test_what_a_file_has_switched_on_a_flag_switches_off(monkeypatch: pytest.MonkeyPatch) -> None:
    near("[defaults]\nadaptive = true\nworth = 3\nallow_unknown_price = true\n")
    assert solving().adaptive and solving().worth == 3.0
    assert not solving("--no-adaptive").adaptive
    monkeypatch.setenv("TROOP_ALLOW_UNKNOWN_PRICE", "off")
    assert not solving().allow_unknown_price


def test_a_variable_names_the_model_where_no_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    near('default_model = "a"\n')
    monkeypatch.setenv("TROOP_MODEL", "openai/b")
    assert load_config().default_model == "openai/b"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: str(setting.name))
def test_every_setting_can_be_set_by_file_and_by_variable(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = attrgetter(setting.place)(Settings())
    other = {
        "until": "strong",
        "judge": "rubric",
        "adaptive": True,
        "allow_unknown_price": True,
        "guide": False,
        "with_tests": True,
        "yes": True,
        "strict": True,
        "judge_model": "j",
        "registry": "host/team",
        "ranker": "rules",
        "threshold": 0.5,
    }
    value = other.get(
        setting.name, {"sandbox": "bubblewrap", "out": "elsewhere", "executor": "ray"}.get(setting.name, 7)
    )
    near(f"[defaults]\n{setting.name} = {str(value).lower() if not isinstance(value, str) else repr(value)}\n")
    by_file = attrgetter(setting.place)(solving())
    Path("troop.toml").unlink()
    monkeypatch.setenv(setting.variable, str(value))
    by_variable = attrgetter(setting.place)(solving())
    assert by_file == by_variable != built_in and str(by_file) in (str(value), f"{value}.0")


def test_every_field_of_the_settings_has_its_row_so_that_eval_sees_whether_it_differs() -> None:
    parts: dict[str, Any] = {"budget.": Budget, "limits.": Limits, "": Settings}
    places = {prefix + field.name for prefix, part in parts.items() for field in fields(part)}
    without = {"budget", "limits", "models", "limits.processes", "limits.output_bytes"}
    assert {setting.place for setting in SETTINGS} == places - without


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: str(setting.name))
def test_the_help_tells_the_built_in_value(setting: Any) -> None:
    built_in = attrgetter(setting.place)(Settings())
    told = re.search(r"\(([\w.]+)\)$", setting.help)
    if built_in is None or built_in is False or told is None:
        assert told is None
    else:
        assert told[1] == (f"{built_in:g}" if isinstance(built_in, int | float) else str(built_in))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attemps = 3", "troop.toml: unknown key defaults.attemps; did you mean attempts?"),
        ("colour = 3", "unknown key defaults.colour; known: attempts, "),
        ('model = "a"', "unknown key defaults.model; say default_model = above [defaults]"),
        ('attempts = "3"', "troop.toml: defaults.attempts must be a whole number, 1 or more, not '3'"),
        ("attempts = 0", "must be a whole number, 1 or more, not 0"),
        ("attempts = true", "must be a whole number, 1 or more, not True"),
        ("attempts = 2.5", "must be a whole number, 1 or more, not 2.5"),
        ("max_usd = -1", "must be a number above 0, not -1"),
        ("threshold = 2", "must be a number from 0 to 1, or one of: likely, strong, proved, not 2"),
        ('threshold = "guess"', "must be a number from 0 to 1, or one of: likely, strong, proved, not 'guess'"),
        ("adaptive = 1", "must be true or false, not 1"),
        ('sandbox = "dokcer"', "must be one of: auto, docker, bubblewrap, not 'dokcer'"),
    ],
)
def test_a_wrong_default_is_one_sentence_with_file_and_key(text: str, said: str) -> None:
    near(f"[defaults]\n{text}\n")
    with pytest.raises(InputError) as caught:
        load_config()
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TROOP_ATTEMPTS", "many", "the variable TROOP_ATTEMPTS must be a whole number, 1 or more, not 'many'"),
        ("TROOP_ADAPTIVE", "maybe", "the variable TROOP_ADAPTIVE must be true or false, not 'maybe'"),
        ("TROOP_MAXUSD", "5", "there is no variable TROOP_MAXUSD; did you mean TROOP_MAX_USD?"),
        ("TROOP_ATEMPTS", "5", "there is no variable TROOP_ATEMPTS; did you mean TROOP_ATTEMPTS?"),
    ],
)
def test_a_wrong_variable_is_one_sentence(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        load_config()
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "name",
    [
        *("CACHE", "DATA", "MIRRORS", "QUIXBUGS", "REQUIRE_DOCKER", "REQUIRE_BUBBLEWRAP", "REQUIRE_NETWORK"),
        *("TEST_SECONDS", "SELECT", "REPORT", "ROOT", "LINES", "SETUP_NETWORK", "FIRST_FAILURE", "DOCKER_ENVIRONMENTS"),
    ],
)
def test_variables_of_other_meaning_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TROOP_{name}", "x")
    assert load_config().defaults == {}


def test_an_empty_variable_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROOP_MAX_USD", "")
    assert solving().budget.usd is None
