"""Patches that exist already, from any tool: what `troop select` chooses among, and what a ranker is fitted on.

Read from

    predictions   JSONL or JSON in SWE-bench's form: `instance_id`, `model_name_or_path`, `model_patch`; several files
                  are several runs, and the model's name says which of them are repeats of one model
    directories   `<instance>.patch`, `<instance>/<anything>.patch` or `.diff`; the directory's name is the model's
    Troop runs    a run directory (or a directory of them): its attempts, each with its model
    trajectories  of SWE-agent (.traj), mini-swe-agent (.traj.json) or ATIF (.atif.json), with the patch in them
    pools         JSON lines, plain or gzipped: `instance_id`, `source`, `model_patch`, and where known `model`; what
                  grading said is not read

A `source` is one run of one tool, a `model` what its repeats have in common. Without a `model` of its own, a source
"name/run-1" belongs to the model "name".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import trace
from harness.trajectories import Trajectory, events_of, read
from tasks.entries import Entries, entries, read_text, text_of
from tasks.errors import InputError

PATCH_ENDINGS = (".patch", ".diff")
TRAJECTORY_ENDINGS = (".traj", ".traj.json", ".atif.json")
_EACH = "a patch must be an object with instance_id and model_patch"


@dataclass(frozen=True, slots=True)
class Sample:
    """One patch of one tool for one instance. `patch`: text decoded with "surrogateescape". `story`: of an attempt of
    Troop's, what it did, to its end."""

    instance: str
    source: str
    model: str
    patch: str
    story: tuple[trace.Event, ...] = ()


def by_instance(samples: Iterable[Sample]) -> dict[str, tuple[Sample, ...]]:
    """The samples of each instance, in the order given, those without a patch left out."""
    found: dict[str, list[Sample]] = {}
    for sample in filter(lambda sample: sample.patch.strip(), samples):
        found.setdefault(sample.instance, []).append(sample)
    return {instance: tuple(of_it) for instance, of_it in found.items()}


def read_candidates(paths: Sequence[Path], instance: str | None = None) -> list[Sample]:
    """All samples of the named files, directories and runs. `instance`: the one task that patches without a name of an
    instance belong to (None: such a patch is an error). Raises InputError: nothing there, or a damaged line."""
    samples: list[Sample] = []
    for path in paths:
        if path.is_dir():
            samples += _of_directory(path, instance)
        elif path.name.endswith(PATCH_ENDINGS):
            samples.append(_of_patch_file(path, instance, path.parent.name or path.stem))
        elif path.name.endswith(TRAJECTORY_ENDINGS):
            sample = of_trajectory(read(path))
            samples.append(sample if instance is None else replace(sample, instance=instance))
        else:
            samples += [sample_of(path, place, fields) for place, fields in fields_of(path)]
    if not samples:
        raise InputError(f"no candidate in {', '.join(map(str, paths))}")
    return _told_apart(samples)


def sample_of(path: Path, place: str, fields: Mapping[str, Any]) -> Sample:
    """The sample of an entry of a file of predictions, or of a pool. `place`: where it stands."""
    if "model_patch" not in fields and "patch" not in fields:
        raise InputError(f"{place}: no model_patch; give predictions or a pool")
    patch = text_of(place, fields, "model_patch" if "model_patch" in fields else "patch", needed=False)
    instance = text_of(place, fields, "instance_id")
    if "source" in fields:
        source = text_of(place, fields, "source")
        return Sample(instance, source, str(fields.get("model") or source.partition("/")[0]), patch)
    model = str(fields.get("model_name_or_path") or path.name.partition(".")[0])
    return Sample(instance, f"{model}@{path}", model, patch)


def fields_of(path: Path) -> Entries:
    """The entries of such a file, each with its place."""
    text = read_text(path, "patches in", errors="surrogateescape")
    return entries(path, text, whole="hold patches: JSON lines, a list, or an object by instance id", each=_EACH)


def _of_directory(path: Path, instance: str | None) -> list[Sample]:
    if runs := _runs(path):
        return [sample for run in runs for sample in _of_run(run)]
    samples = []
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name.endswith(PATCH_ENDINGS):
            named = file.stem if file.parent == path else file.parent.name
            sample = _of_patch_file(file, named if instance is None else instance, path.name)
            samples.append(replace(sample, source=f"{path.name}/{file.relative_to(path).as_posix()}"))
    if not samples:
        raise InputError(f"{path} holds neither runs nor .patch or .diff files")
    return samples


def _runs(path: Path) -> list[Path]:
    """The directory, if it is that of a run; else those in it that are."""
    is_run = [run for run in (path, *sorted(path.iterdir())) if (run / "run.json").exists()]
    return is_run[:1] if is_run[:1] == [path] else is_run


def of_trajectory(it: Trajectory) -> Sample:
    """What another tool tells of an attempt, as a sample."""
    return Sample(it.instance, it.name, it.model, it.patch, story=tuple(events_of(it)))


def _of_patch_file(path: Path, instance: str | None, model: str) -> Sample:
    if instance is None:
        raise InputError(f"{path}: which instance is it of? Put it into a directory as INSTANCE.patch")
    return Sample(instance, str(path), model, read_text(path, "the patch", errors="surrogateescape"))


_TOLD = (trace.Planned, trace.Decided, trace.ToolRan, trace.TestsRan, trace.WitnessRecorded, trace.TurnEnded)


def _of_run(path: Path) -> list[Sample]:
    """The attempts of a Troop run that ended with a patch and were not the world's failures."""
    instance, samples = "", dict[int | None, Sample]()
    begun, stories = dict[int | None, trace.AttemptStarted](), dict[int | None, list[trace.Event]]()
    for event in trace.read(path / "trace.jsonl"):
        if isinstance(event, trace.RunStarted):
            instance = str(event.task["id"])
        elif isinstance(event, trace.AttemptStarted):
            begun[event.attempt] = event
        elif isinstance(event, _TOLD):
            stories.setdefault(event.attempt, []).append(event)
        elif isinstance(event, trace.AttemptEnded) and event.patch and event.status != "infrastructure":
            start, story = begun[event.attempt], (*stories.get(event.attempt, ()), event)
            source = start.name or f"{path.name}/{event.attempt}"
            samples[event.attempt] = Sample(instance, source, start.model, event.patch, story=story)
    return list(samples.values())


def _told_apart(samples: Sequence[Sample]) -> list[Sample]:
    """Each source once an instance: a second patch of the same name gets a number."""
    seen: dict[tuple[str, str], int] = {}
    out = []
    for sample in samples:
        key = (sample.instance, sample.source)
        seen[key] = seen.get(key, 0) + 1
        out.append(sample if seen[key] == 1 else replace(sample, source=f"{sample.source}#{seen[key]}"))
    return out
