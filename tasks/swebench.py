"""SWE-bench rows: the suites, or any file with the same fields, and the task that a row stands for.

A row holds both what a solver may see and the hidden data that grade it. `task_of` is the one way from a row to a
`Task`, and reads the visible half only: the statement, the repository and its base. `hints_text` is not even kept.
"""

import json
import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.choose import bare, choose
from tasks.entries import Entries, entries, kind, read_text, text_of
from tasks.errors import Explained, InputError
from tasks.row_shapes import as_newer
from tasks.task import ID, Repository, Task

HUB: Mapping[str, str] = tomllib.loads(Path(__file__).with_name("hub.toml").read_text(encoding="utf-8"))

SUITES = frozenset(HUB)

GET_EXTRA = "pip install 'datasets>=2.19'"

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SAYS_SOMETHING = re.compile(r".*\S.*", re.DOTALL)
_NEWER = ("image", "eval_script", "log_parser", "eval_type", "spec", "tree", "enter", "test_command")
_PARQUET = b"PAR1"
TREE = "/testbed"
"""Where SWE-bench's images have the repository."""
ENTER = f"cd {TREE}"

_TEST_COMMAND = "python -m pytest -q"
_TEST_COMMANDS = {"django/django": "python tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1"}


@dataclass(frozen=True, slots=True)
class Row:
    """One instance of SWE-bench as its data set has it.

    Hidden from every solver, verifier and judge: `patch` (the right one), `test_patch`, `fail_to_pass`, `pass_to_pass`,
    and of the newer rows `eval_script`, which names the hidden tests. `created_at`: aware, None where absent.
    `environment_setup_commit`: `base_commit` where absent. `image`, `eval_script`, `log_parser`, `eval_type`, `spec`
    (JSON: how it is installed and tested, in the form of the official specifications): "" where absent. `tree`: where
    the image has the repository. `enter`: the shell command that goes there before a patch is laid.
    `test_command`: for attempts, where the repository does not tell; an image that the row names may hold any language.
    """

    instance_id: str
    repo: str
    base_commit: str
    version: str
    created_at: datetime | None
    problem_statement: str
    patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    environment_setup_commit: str
    image: str = ""
    eval_script: str = ""
    log_parser: str = ""
    eval_type: str = ""
    spec: str = ""
    tree: str = TREE
    enter: str = ENTER
    test_command: str = ""


def load_rows(suite: str, dataset: Path | None = None) -> list[Row]:
    """The rows of a suite, in the data set's order: from the file `dataset` (JSONL, JSON, parquet), else from the hub.

    Raises InputError: for a damaged or missing file, naming the line and the field; for an id that is there twice;
    where the hub, or the extra that reads it, is not to be had."""
    found = _from_hub(suite) if dataset is None else _from_file(dataset)
    rows: dict[str, tuple[str, Row]] = {}
    for place, fields in found:
        row = _row(place, as_newer(place, fields, (dataset or Path("rows")).absolute().parent))
        earlier, _ = rows.setdefault(row.instance_id, (place, row))
        if earlier != place:
            raise InputError(f"{place}: instance_id {row.instance_id} is there already, in {earlier}")
    if not rows:
        raise InputError(f"{dataset or HUB[suite]} holds no rows")
    return [row for _, row in rows.values()]


def choose_rows(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows that the patterns of `tasks.choose` name, in order. Raises InputError for one that names none."""
    names = {row.instance_id: bare(row.instance_id) for row in rows}
    chosen = set(choose(names, patterns, {row.instance_id: row.repo for row in rows}))
    return [row for row in rows if row.instance_id in chosen]


def repository_of(row: Row, mirrors: Path | None = None) -> Repository:
    """The row's repository at its base: a clone in the directory `mirrors` where there is one, else GitHub.

    A clone there is called `owner__name.git`, `owner__name`, `owner/name.git` or `owner/name`, bare or not.
    Raises InputError where `mirrors` is not a directory."""
    if mirrors is not None and not mirrors.is_dir():
        raise InputError(f"--mirrors {mirrors} is not a directory")
    for stem in (row.repo.replace("/", "__"), row.repo):
        for clone in (mirrors / f"{stem}.git", mirrors / stem) if mirrors is not None else ():
            if (clone / "HEAD").is_file() or (clone / ".git").exists():
                return Repository("path", str(clone.absolute()), row.base_commit)
    return Repository("url", f"https://github.com/{row.repo}.git", row.base_commit)


def task_of(row: Row, repository: Repository) -> Task:
    """The task of a row, wherever it is to be solved. Nothing in it comes from the row's hidden fields."""
    return Task(
        id=row.instance_id,
        repository=repository,
        statement=row.problem_statement.strip() + "\n",
        test_command=row.test_command or _TEST_COMMANDS.get(row.repo, None if row.image else _TEST_COMMAND),
        test_scope="near",
    )


# ---- reading


def _from_hub(suite: str) -> Entries:
    name = HUB.get(suite)
    if name is None:
        raise InputError(f"there is no suite {suite!r}: it is one of {', '.join(sorted(SUITES))}")
    or_else = "give them as a file with --dataset FILE"
    with Explained(
        f"the rows of {suite} come from the hub by the extra `eval` ({GET_EXTRA}); or {or_else}", ImportError
    ):
        import datasets
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each of its retries
    # Each release of the hub's client raises others.
    with Explained(f"the rows of {suite} cannot be had from the hub ({name}), so {or_else}", Exception):
        found = list(datasets.load_dataset(name, split="test"))
    return ((f"{name}, row {number}", fields) for number, fields in enumerate(found, 1))


def _from_file(path: Path) -> Entries:
    with Explained(f"cannot read the rows in {path}", OSError), path.open("rb") as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            return _from_parquet(path)
    text = read_text(path, "the rows in", other="neither UTF-8 text nor parquet")
    whole = "hold rows: a list of objects, or an object of them by id"
    return entries(path, text, whole=whole, each="a row must be an object with fields")


def _from_parquet(path: Path) -> Entries:
    with Explained(
        f"{path} is parquet, which needs the extra `eval` ({GET_EXTRA}); or convert it to JSONL", ImportError
    ):
        import pyarrow
        import pyarrow.parquet
    with Explained(f"{path} is damaged", pyarrow.ArrowException, OSError):
        found = pyarrow.parquet.read_table(path).to_pylist()
    return ((f"{path}, row {number}", fields) for number, fields in enumerate(found, 1))


def _row(place: str, fields: Mapping[str, Any]) -> Row:
    base = _shaped(place, fields, "base_commit", _COMMIT, "a commit's hash")
    return Row(
        instance_id=_shaped(place, fields, "instance_id", ID, "a name fit for a file"),
        repo=_shaped(place, fields, "repo", _REPO, "owner/name"),
        base_commit=base,
        created_at=_date(place, fields),
        problem_statement=_shaped(place, fields, "problem_statement", _SAYS_SOMETHING, "more than blanks"),
        fail_to_pass=_tests(place, fields, "FAIL_TO_PASS"),
        pass_to_pass=_tests(place, fields, "PASS_TO_PASS"),
        environment_setup_commit=text_of(place, fields, "environment_setup_commit", needed=False) or base,
        **{name: text_of(place, fields, name) for name in ("patch", "test_patch")},
        version=text_of(place, fields, "version", needed=not fields.get("eval_script")),
        **{name: text for name in _NEWER if (text := text_of(place, fields, name, needed=False))},
    )


def _shaped(place: str, fields: Mapping[str, Any], name: str, shape: re.Pattern[str], what: str) -> str:
    value = text_of(place, fields, name)
    if not shape.fullmatch(value):
        raise InputError(f"{place}: the field {name} must be {what}, not {value[:80]!r}")
    return value


def _date(place: str, fields: Mapping[str, Any]) -> datetime | None:
    """`created_at`, in UTC where it names no zone: text as ISO 8601, or a moment of parquet's own type."""
    value = fields.get("created_at")
    if value is None or value == "":
        return None
    if isinstance(value, str):
        with Explained(f"{place}: the field created_at is no date", ValueError):
            date = datetime.fromisoformat(value)
    elif isinstance(value, datetime):
        date = value
    else:
        raise InputError(f"{place}: the field created_at must be a date, not {kind(value)}")
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _tests(place: str, fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of test ids, or the JSON text of one."""
    value = fields.get(name)
    if value is None:
        raise InputError(f"{place}: the field {name} is missing")
    if isinstance(value, str):
        with Explained(f"{place}: the field {name} is no list of tests in JSON", ValueError):
            value = json.loads(value)
    if not isinstance(value, list) or not all(isinstance(test, str) for test in value):
        raise InputError(f"{place}: the field {name} must be a list of tests, not {kind(value)}")
    return tuple(value)
