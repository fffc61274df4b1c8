"""Options that several commands share, and how they become `Settings`."""

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.defaults import BY_NAME, READERS, SETTINGS, Setting, switch
from harness.records import Budget
from harness.sandbox.base import Limits
from harness.sandbox.choice import with_images, without_images
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.say import Say
from tasks.task import GivenTest

if TYPE_CHECKING:
    from agent.config import Settings
    from harness.swebench.images import Here

WORKERS = 2
"""Images in work, or containers that grade, at a time, unless asked or known."""


def add_options(parser: argparse.ArgumentParser, *tables: str) -> None:
    """The options of these tables of options.toml, under their headings. Settings have no defaults: see `fill_in`."""
    known = tomllib.loads((Path(__file__).parent / "options.toml").read_text(encoding="utf-8"))
    for title, options in (group for name in tables for group in known[name].items()):
        there = {group.title: group for group in parser._action_groups}
        group = there.get(title) or (parser.add_argument_group(title) if title else parser)
        names, whole = options.pop("settings", ()), options.pop("whole", "")
        for flag, facts in options.items():
            usual: dict[str, Any] = {"action": "store_true"}
            if {"metavar", "choices"} & facts.keys():
                usual = {"type": READERS[facts.pop("read", "str")]}
            if facts.pop("many", False):
                usual |= {"action": "append", "default": []}
            elif "choices" in facts and flag.startswith("-"):
                usual["default"] = facts["choices"][0]
            group.add_argument(flag, **usual | facts)
        for setting in SETTINGS if names is True else map(BY_NAME.__getitem__, names):
            if names is not True or setting.group == title:
                _add_setting(group, setting, setting.help.format(whole=whole))


def _add_setting(group: argparse._ActionsContainer, setting: Setting, told: str) -> None:
    flags = ["-n"] if setting.name == "attempts" else []
    flags.append("--" + setting.name.replace("_", "-"))
    if setting.read is switch:
        group.add_argument(*flags, action=argparse.BooleanOptionalAction, help=told)
    else:
        known = setting.choices or None
        group.add_argument(*flags, type=setting.read, choices=known, metavar=setting.metavar, help=told)


def task_of(known: argparse.Namespace, source: str, say: Say, instance: Instance | None = None) -> Instance:
    """What the source names (or `instance`), with what the options of the task say of its environment and tests."""
    from tasks.source import resolve

    asked = {name: getattr(known, name) for name in ("issue", "issue_text", "base", "include_uncommitted")}
    instance = instance or resolve(source, **asked, say=say)
    task = instance.task
    if known.image and without_images(known.sandbox):
        raise InputError(f"--image needs {with_images()}: {known.sandbox} has no images")
    said = {"image": known.image, "python": known.python, "setup": tuple(known.setup), "directory": known.directory}
    environment = replace(task.environment, **{name: value for name, value in said.items() if value})
    given = GivenTest(ids=tuple(known.failing_test)) if known.failing_test else task.failing_test
    test_command = known.test_command or task.test_command
    return replace(instance, task=replace(task, environment=environment, test_command=test_command, failing_test=given))


def fill_in(known: argparse.Namespace, names: Iterable[str] = BY_NAME) -> None:
    """Give each of these settings that was not said on the command line the value that variables, files or Troop itself
    have for it. Raises InputError for one that makes no sense."""
    from agent.config import Settings, load_config

    lasting, built_in = load_config().defaults, Settings()
    for name in names:
        if getattr(known, name, None) is None:
            value, _ = lasting.get(name) or (attrgetter(BY_NAME[name].place)(built_in), "")
            setattr(known, name, value)


def nodes_of(known: argparse.Namespace) -> "Callable[[], Here]":
    """What gives the machines that --executor means. Raises as `agent.nodes.Nodes` when it is asked for them."""
    from harness.swebench.images import Here

    fill_in(known, ["executor", "registry"])
    if known.executor != "ray":
        return Here
    from agent.nodes import Nodes

    return partial(Nodes, known.registry)


def settings_of(known: argparse.Namespace, earlier: "Settings | None" = None) -> "Settings":
    """The `Settings` that the options of solving say, and for what they do not say an `earlier` run's, else what
    `fill_in` finds."""
    from agent.config import Settings

    worth_said = known.worth is not None
    if earlier is not None:
        known.model = known.model or list(earlier.models)
        for setting in (each for each in SETTINGS if getattr(known, each.name, None) is None):
            setattr(known, setting.name, attrgetter(setting.place)(earlier))
    fill_in(known)
    if worth_said and not known.adaptive:
        raise InputError("--worth says when --adaptive stops: give both")
    if known.out.exists() and not known.out.is_dir():
        raise InputError(f"--out {known.out} is a file; give a directory")
    parts: dict[str, dict[str, Any]] = {"": {}, "budget": {}, "limits": {}}
    for setting in SETTINGS:
        part, _, name = setting.place.rpartition(".")
        parts[part][name] = getattr(known, setting.name)
    budget, limits = Budget(**parts["budget"]), Limits(**parts["limits"])
    return Settings(models=tuple(known.model), budget=budget, limits=limits, **parts[""])


def run_of(known: argparse.Namespace, *, evaluations: bool = False) -> Path:
    """The run that is named; else the latest one (or evaluation) where runs go, which is said. Raises InputError where
    there is none."""
    if known.run:
        return Path(known.run)
    from agent.run_files import kept_in

    fill_in(known, ["out"])
    found = next((place for place in kept_in(known.out) if evaluations or (place / "trace.jsonl").exists()), None)
    if found is None:
        raise InputError(f"there is no run in {known.out} yet: name a run{' or an evaluation' * evaluations}")
    sys.stderr.write(f"troop: the latest run, {found}\n")
    return found
