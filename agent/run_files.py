"""The run directory: where a run's files are, and how they are written (whole or not at all)."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config import Settings
from harness import trace
from harness.cache import write_json, write_text
from harness.outputs import make_output
from harness.records import Candidate, Json, Selection
from harness.room import writing
from harness.views.report import run_status, solve_report
from harness.views.words import verdict_words
from tasks.errors import Explained, InputError
from tasks.task import Task, title_of

RUN_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of the run at `directory`."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def trace_file(self) -> Path:
        return self.directory / "trace.jsonl"

    @property
    def selected_patch(self) -> Path:
        return self.directory / "selected.patch"

    @property
    def predictions(self) -> Path:
        return self.directory / "predictions.jsonl"

    @property
    def report(self) -> Path:
        return self.directory / "report.json"

    def write_run(self, task: Task, settings: Settings, versions: Json, source: str, status: str) -> None:
        """run.json: what a resume needs. `source`: what the user named, absolute where it is a path."""
        write_json(
            self.directory / "run.json",
            {
                "schema": RUN_SCHEMA,
                "run": self.name,
                "status": status,
                "source": source,
                "task": trace.public(task),
                "settings": trace.public(settings),
                "versions": versions,
            },
        )

    def read_run(self) -> tuple[Task, Settings, str]:
        """Task, settings and source of the run. Raises InputError for a directory that is no run, or a damaged file."""
        data = self._run()
        with Explained(f"{self.directory / 'run.json'} is damaged", ValueError, LookupError, TypeError):
            return trace.record(Task, data["task"]), trace.record(Settings, data["settings"]), str(data["source"])

    def _run(self) -> Json:
        path = self.directory / "run.json"
        if not path.exists():
            raise InputError(f"{self.directory} is not a run directory: it has no run.json")
        with Explained(f"{path} is damaged", OSError, ValueError, TypeError, RecursionError):
            return dict(json.loads(path.read_bytes()))

    def write_results(
        self, events: Sequence[trace.Event], candidates: Sequence[Candidate], selection: Selection
    ) -> None:
        """attempts/NN/patch.diff, selected.patch (only where something was selected), predictions.jsonl."""
        self.write_patches(events)
        chosen = next((c for c in candidates if c.id == selection.candidate), None)
        if chosen is not None:
            write_text(self.selected_patch, chosen.patch)
        else:
            self.selected_patch.unlink(missing_ok=True)
        started = events[0]
        assert isinstance(started, trace.RunStarted), "the first event of every trace"
        made = started.settings.get("budget", {}).get("attempts", 1)  # 0: the models only write tests
        prediction = {
            "instance_id": started.task["id"],
            "model_name_or_path": "+".join(started.settings.get("models", ()) if made else ()) or "troop",
            "model_patch": chosen.patch if chosen else "",
        }
        write_text(self.predictions, json.dumps(prediction) + "\n")

    def write_patches(self, events: Sequence[trace.Event]) -> None:
        """attempts/NN/patch.diff of every attempt that has ended."""
        for event in events:
            if isinstance(event, trace.AttemptEnded):
                write_text(self.directory / "attempts" / f"{event.attempt:02d}" / "patch.diff", event.patch)

    def lacks_results(self, selection: Selection) -> bool:
        """Whether a file of `write_results` is not there (all but the patches of attempts are looked at)."""
        wanted = [self.predictions, *([self.selected_patch] if selection.candidate is not None else [])]
        return not all(path.exists() for path in wanted)

    def write_report(self, events: Sequence[trace.Event]) -> Json:
        """report.json and the status in run.json; returns the report."""
        report = solve_report(events)
        write_json(self.report, report)
        write_json(self.directory / "run.json", {**self._run(), "status": run_status(events)})
        return report


def run_name(task_id: str) -> str:
    """A name for a new run: the task, the time, and enough chance to keep two of the same second apart."""
    return f"{task_id}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def new_run(directory: Path) -> RunFiles:
    """A new run directory. Raises InputError where it cannot be made, DiskFull where it has no room."""
    with Explained(f"cannot make the run directory {directory}", OSError), writing(directory):
        make_output(directory)
    return RunFiles(directory.resolve())


SIGNS = ("trace.jsonl", "eval.json", "report.json")
"""Files of which a directory of a run or an evaluation has one."""


def last_worked_on(place: Path) -> float:
    """When a run or an evaluation was last written to, in seconds since the epoch; 0 for what is neither."""
    return max(((place / sign).stat().st_mtime for sign in SIGNS if (place / sign).is_file()), default=0.0)


def kept_in(directory: Path) -> list[Path]:
    """The runs and evaluations in a directory, the one last worked on first."""
    found = filter(last_worked_on, directory.iterdir() if directory.is_dir() else ())
    return sorted(found, key=last_worked_on, reverse=True)


def overview(directory: Path) -> Json:
    """A run or an evaluation in a line: `name`, `title`, `verdict` in words, `usd` (None: unknown), and `at`, when it
    was last worked on, in seconds since the epoch. Of a damaged one the title says what is the matter."""
    files = RunFiles(directory)
    about: Json = {"name": directory.name, "at": last_worked_on(directory), "usd": None}
    try:
        if not files.trace_file.exists():
            suite = json.loads((directory / "eval.json").read_bytes())["suite"]
            report = json.loads(files.report.read_bytes()) if files.report.exists() else {"usd": None}
            done = f"{report['selected']} of {report['instances']} resolved" if "suite" in report else "not finished"
            return {**about, "title": f"evaluation of {suite}", "verdict": done, "usd": report["usd"]}
        fresh = files.report.exists() and files.report.stat().st_mtime >= files.trace_file.stat().st_mtime
        report = json.loads(files.report.read_bytes()) if fresh else solve_report(list(trace.read(files.trace_file)))
        title = title_of(str(files._run()["task"]["statement"])) or report["task"]
        return {**about, "title": title, "verdict": verdict_words(report), "usd": report["cost"]["usd"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError, InputError) as error:
        return {**about, "title": f"{directory} is damaged: {error}", "verdict": "damaged"}
