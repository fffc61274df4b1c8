"""Options that several commands share, and how they become `Settings`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.defaults import BY_NAME, CAPS, ORDER, SETTINGS, TRIES, WHERE, switch
from harness.records import Budget
from harness.sandbox.base import Limits
from harness.sandbox.choice import with_images, without_images
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.say import Say
from tasks.task import GivenTest

if TYPE_CHECKING:
    from agent.config import Settings


def add_repeatable(
    group: argparse._ActionsContainer, flag: str, metavar: str, told: str, read: Callable[[str], Any] = str, **more: Any
) -> None:
    """An option that may be given several times: a list of what each says. `told`: its help; `more`: for argparse."""
    group.add_argument(flag, action="append", default=[], type=read, metavar=metavar, help=told, **more)


def add_choice(group: argparse._ActionsContainer, flag: str, words: Sequence[str], told: str) -> None:
    """An option that takes one of these words, and is the first of them where it is not given. `told`: its help."""
    group.add_argument(flag, choices=words, default=words[0], help=told)


def add_settings(group: argparse._ActionsContainer, names: Iterable[str], whole: str = "") -> None:
    """The options of these settings, without defaults: see `fill_in`. `whole`: what caps hold for, in words."""
    for setting in (BY_NAME[name] for name in names):
        flags = ["--" + setting.name.replace("_", "-")]
        told = setting.help.format(whole=whole)
        if setting.read is switch:
            group.add_argument(*flags, action=argparse.BooleanOptionalAction, help=told)
            continue
        flags = ["-n", *flags] if setting.name == "attempts" else flags
        known = setting.choices or None
        group.add_argument(*flags, type=setting.read, choices=known, metavar=setting.metavar, help=told)


def add_solving(parser: argparse.ArgumentParser, whole: str = "of the whole run") -> None:
    """The options of solving: attempts, models, sandbox, budgets. `whole`: what the caps hold for, in words."""
    for title in (TRIES, CAPS, ORDER, WHERE):
        group = parser.add_argument_group(title)
        if title == TRIES:
            told = "alias, provider/name, http://host:port/v1#name, or repair; several: attempts rotate"
            add_repeatable(group, "--model", "NAME", told)
        add_settings(group, (setting.name for setting in SETTINGS if setting.group == title), whole)
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def add_task(parser: argparse.ArgumentParser) -> None:
    """What a single task is, and how it is set up: see `task_of`."""
    task = parser.add_argument_group("the task")
    task.add_argument("--issue", metavar="FILE", help="the issue's text for a local repository; - reads stdin")
    task.add_argument("--issue-text", metavar="TEXT", help="the same, given here")
    task.add_argument("--base", metavar="REF", help="commit, tag or branch to start from (the default branch's head)")
    task.add_argument(
        "--include-uncommitted", action="store_true", help="start from the tree with its uncommitted changes"
    )
    add_repeatable(task, "--failing-test", "ID", "a test of the repository that shows the issue")
    task.add_argument("--image", help="Docker image to start from")
    task.add_argument("--python", metavar="X.Y", help="Python version of the environment")
    add_repeatable(task, "--setup", "COMMAND", "set-up command, instead of detected")
    task.add_argument("--directory", metavar="DIR", help="of the project, in a repository that has several")
    task.add_argument("--test-command", metavar="COMMAND", help="runs the test-suite in the repository's root")


def task_of(known: argparse.Namespace, source: str, say: Say) -> Instance:
    """What the source names, with what the options of `add_task` say of its environment and tests."""
    from tasks.source import resolve

    instance = resolve(
        source,
        issue=known.issue,
        issue_text=known.issue_text,
        base=known.base,
        include_uncommitted=known.include_uncommitted,
        say=say,
    )
    task = instance.task
    if known.image and without_images(known.sandbox):
        raise InputError(f"--image needs {with_images()}: {known.sandbox} has no images")
    environment = replace(
        task.environment,
        image=known.image or task.environment.image,
        python=known.python or task.environment.python,
        setup=tuple(known.setup) or task.environment.setup,
        directory=known.directory or task.environment.directory,
    )
    given = GivenTest(ids=tuple(known.failing_test)) if known.failing_test else task.failing_test
    test_command = known.test_command or task.test_command
    return replace(instance, task=replace(task, environment=environment, test_command=test_command, failing_test=given))


def add_afterwards(parser: argparse.ArgumentParser) -> None:
    """What is done with the patch of a run once it is there."""
    after = parser.add_argument_group("afterwards")
    after.add_argument("--apply", action="store_true", help="put the patch on a new branch of the local repository")
    told = "tell whether the patch passes the task file's hidden tests"
    after.add_argument("--grade", action="store_true", help=told)


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Which instances of a suite, and where SWE-bench's rows and their repositories come from."""
    which = parser.add_argument_group("instances")
    told = "only these: ids, bare names, globs, repo:NAME, sample:N@SEED (repeatable, or joined by commas)"
    add_repeatable(which, "--instances", "PATTERN", told)
    which.add_argument("--dataset", type=Path, metavar="FILE", help="the rows (JSONL, JSON, parquet), not the hub's")
    which.add_argument(
        "--rules",
        choices=("5", "4.1", "both"),
        default="5",
        help="the official rules to grade by: of swebench 5 (the default), of 4.1, or of 5 and told where 4.1's differ",
    )
    which.add_argument("--mirrors", type=Path, metavar="DIR", help="clones called owner__name.git or owner/name")


def fill_in(known: argparse.Namespace, names: Iterable[str] = BY_NAME) -> None:
    """Give each of these settings that was not said on the command line the value that variables, files or Troop itself
    have for it. Raises InputError for one that makes no sense."""
    from agent.config import Settings, load_config

    lasting, built_in = load_config().defaults, Settings()
    for name in names:
        if getattr(known, name, None) is None:
            value, _ = lasting.get(name) or (attrgetter(BY_NAME[name].place)(built_in), "")
            setattr(known, name, value)


def settings_of(known: argparse.Namespace) -> Settings:
    """The `Settings` that the options of `add_solving` say, and for what they do not say `fill_in`."""
    from agent.config import Settings

    worth_said = known.worth is not None
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
