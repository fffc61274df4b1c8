"""The trace: the append-only event log of a run, and the only record. Ledger, replay, report and metrics read it.

One JSON object a line; the first is a `RunStarted` that carries the schema version. A line is written (and flushed to
the operating system) before anything acts on it, so that kill -9 loses at most the event under way; a torn last line is
dropped when the trace is opened again. Secrets are masked on the way in (`mask`), and listeners get the event as it was
written: no one in the run works with another text than a resume would.
"""

import base64
import contextlib
import dataclasses
import functools
import json
import os
import re
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.lock import locked
from harness.packed import Packer, Unpacker
from harness.records import Charge, Evidence, Json, Purpose, Selection, TestReport, Told, Tree, Verdict, WitnessTest
from harness.room import MAKE_ROOM, writing
from tasks.errors import DiskFull, InputError

SCHEMA = 2
BY_HAND = "by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `kind`: what it is called in the file, the class's name with hyphens ("run-started"). `at`:
    seconds since the epoch, when it was written. `attempt` None: an event of the run.

    `masked`: a known secret was masked in what is carried out, so this is not quite what was said or made."""

    kind: ClassVar[str] = ""
    at: float = 0.0
    attempt: int | None = None
    masked: bool = False

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """First line of every trace. `task`: the public task; `settings`: as the user gave them, secrets masked."""

    schema: int = field(default_factory=lambda: SCHEMA)  # no default, so always written: a later Troop has another
    run: str
    task: Json
    settings: Json
    versions: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed(Event):
    """A new process went on with the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReopened(Event):
    """A run that had come to its end goes on: `attempts` in all from now on, as many as before or more.

    What the world ended goes on where it stood, and so does what the run's own cap ended; a selection made before is
    made again. `why`: in a few words, for people."""

    attempts: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Event):
    """Environment and baseline are there. `baseline` None: the repository has no tests that run (see `note`, which
    sums `notes` up). `python`, `install`, `fell_back_from`: as in `harness.environments.environment.Built`.
    `about`: what attempts are told of the repository."""

    base_commit: str
    environment: str
    backend: str
    image: str | None = None
    test_command: str | None = None
    baseline: TestReport | None = None
    flaky: tuple[str, ...] = ()
    missing_limits: tuple[str, ...] = ()
    note: str = ""
    about: str = ""
    seconds: float = 0.0
    python: str = ""
    install: str = ""
    fell_back_from: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Event):
    """`name`: where a patch that was handed in comes from; empty for an attempt of the run's own."""

    seed: int
    model: str
    sampling: Json = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Event):
    """A call of this `key` is sent now; `Replied` or `Charged` tells what came of it, and nothing does where the
    process was killed meanwhile. `reached` False: it is known not to have reached the model."""

    key: str
    purpose: Purpose
    model: str
    reached: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied(Event):
    """A model's answer, written with its charge before anything acts on it: what is in the trace is never paid again.

    `key`: the call's name within the run, such as "3/plan", "3/17" or "judge/c1-c2/0". `message`: the assistant message
    as the server sent it. `charge` covers this call. `cut`: the server ended the answer at the limit of its length."""

    key: str
    message: Json
    charge: Charge
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged(Event):
    """A charge without a usable answer (a retry that may have reached the model)."""

    key: str
    charge: Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """The attempt's plan: `text` for people and prompts, `data` for the policy (repair: the suspicious lines)."""

    text: str
    data: Json = field(default_factory=dict)
    stop: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Event):
    """What the policy decided in a turn: text and tool calls (`{id, name, arguments}`); `error`: malformed, and how;
    `stop`: the status with which the attempt ends after this turn; `thoughts`: what the model thought before it, where
    the server tells that apart."""

    turn: int
    text: str
    calls: tuple[Json, ...] = ()
    error: str = ""
    stop: str = ""
    thoughts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRan(Event):
    """One tool call's result as the model sees it. `diff`: the change that an edit made, for people."""

    turn: int
    call: str
    name: str
    result: str
    ok: bool = True
    diff: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TestsRan(Event):
    """The turn's test run. `selection`: what was asked for (empty: the whole suite)."""

    __test__ = False

    turn: int
    report: TestReport
    selection: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChanged(Event):
    """Files that changed in the attempt's workspace during the turn; folding them rebuilds the tree on resume."""

    turn: int
    tree: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRecorded(Event):
    turn: int
    witness: WitnessTest


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded(Event):
    """The turn is complete: resume starts after the last of these. `seconds`: wall; `model_seconds`, `command_seconds`:
    how much of it went to the model and to commands, so the rest is overhead."""

    turn: int
    seconds: float
    model_seconds: float = 0.0
    command_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(Event):
    """`patch`: the diff against the base, taken by the harness."""

    status: str
    patch: str
    flags: tuple[str, ...] = ()
    turns: int = 0
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfrastructureFailed(Event):
    """The world's failure, not the model's. `retried`: whether it was tried again."""

    what: str
    detail: str
    retried: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached(Event):
    """A cap of the whole run is reached: no attempt starts any more. `limit`: "usd", "tokens" or "seconds"."""

    limit: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsChanged(Event):
    """From now on these hold (None: as before): `usd`, `tokens`: of the run; `concurrency`: attempts at a time."""

    kind: ClassVar[str] = "caps-changed"
    usd: float | None = None
    tokens: int | None = None
    concurrency: int | None = None

    @property
    def words(self) -> str:
        """In a line, for people."""
        caps = {"--max-usd": self.usd, "--max-tokens": self.tokens, "--concurrency": self.concurrency}
        return "changed: " + ", ".join(f"{option} {cap}" for option, cap in caps.items() if cap is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearTested(Event):
    """What the base's tests near to the candidates say (a task's scope "near"): every candidate is held against these.

    `paths`, `names`: what the candidates touch, files; the functions and classes around, and words of their messages.
    `report` None: there are no such tests (see `note`). `flaky`: what does not pass every time. `seconds`: what finding
    out took."""

    paths: tuple[str, ...]
    names: tuple[str, ...] = ()
    report: TestReport | None = None
    flaky: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(Event):
    """The evidence on one candidate. `key`: hash of patch and verification inputs, so nothing is verified twice.
    `early`: found while attempts were still being made (adaptive sampling), to decide on more of them."""

    candidate: str
    attempts: tuple[int, ...]
    key: str
    evidence: Evidence
    early: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingStopped(Event):
    """No further attempt of this task is started. `why`, as it was known after `attempts` samples: by adaptive sampling
    "decisive", "hopeless" or "not worth it" (those under way end); "proved" or "strong" where a candidate is as good as
    the run was to go on for (those under way are broken off); "by hand" where a person wants to finish with what there
    is (those under way end as they stand).

    `worth`: the chance that the best candidate is right; `hope`: that any of the next 16 attempts would be; `gain`:
    what another attempt is expected to add to `worth`, `usd` what it would cost, and `per_solve` what a solved task is
    worth, in USD (where there is no price, an hour of an attempt counts as one)."""

    why: str
    attempts: int
    worth: float = 0.0
    hope: float = 0.0
    gain: float = 0.0
    usd: float = 0.0
    per_solve: float = 0.0

    @property
    def words(self) -> str:
        """In a line, for people."""
        best = f"the best candidate is right with a chance of {self.worth:.2f}"
        spared = f"another attempt is worth {self.gain * self.per_solve:.2g} USD and costs {self.usd:.2g}"
        reasons = {
            "decisive": best,
            "hopeless": f"the chance that any of the next attempts is right is {self.hope:.2f}",
            "not worth it": f"{best}; {spared}" if self.worth else spared,
            "proved": "a candidate is proved by a failing test that passes now",
            "strong": "a candidate is strongly supported by tests of several attempts",
        }
        made = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        if self.why == BY_HAND:
            return f"finished by hand after {made}, with what there was"
        return f"sampling stopped, {self.why}: after {made} {reasons[self.why]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed(Event):
    """What the issue's own code does on the base (`patch` "") or with a patch, named by its digest; what was probed is
    not probed again. `shown`: steps by probe. Of the base also `sources`, the steps' text, and `unsteady`, the steps
    that two runs do not agree on. `note`: why the probes say nothing in this run; then nothing else counts."""

    patch: str
    shown: Json = field(default_factory=dict)
    sources: Json = field(default_factory=dict)
    unsteady: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTested(Event):
    """A test of the judge's on the base and the `finalists`. `useless`: why it is no evidence ("" if it is), or why
    there is none. `path`, `text` empty: the judge wrote none that can be run. Of several with one path the last
    stands."""

    finalists: tuple[str, ...]
    path: str = ""
    text: str = ""
    told: tuple[Told, ...] = ()
    useless: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Event):
    """One pairwise comparison (both orders make two). `winner` None: a tie, an unusable answer, or (`neither`) none of
    the two solves the issue."""

    first: str
    second: str
    winner: str | None
    reason: str
    neither: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSaid(Event):
    """What the judge holds of one candidate that it tried out, or held against what a right fix must do. `points`: the
    more the better, beside the others that were said at the same time. `neither`: none of them solves the issue."""

    candidate: str
    points: float
    reason: str
    neither: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeStopped(Event):
    """The judge came to no end: what it was `before`, in words, and why (a cap). Its points so far count."""

    before: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Event):
    selection: Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded(Event):
    """Hidden tests' word on a candidate; written after the selection, read by no policy."""

    candidate: str
    resolved: bool
    reason: str = ""
    fail_to_pass: Mapping[str, str] = field(default_factory=dict)
    pass_to_pass: Mapping[str, str] = field(default_factory=dict)
    flaky: bool = False

    @classmethod
    def of(cls, candidate: str, verdict: Verdict) -> Self:
        return cls(candidate=candidate, **dataclasses.asdict(verdict))

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.resolved, self.fail_to_pass, self.pass_to_pass, self.reason, self.flaky)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """`status`: "selected", "none", "budget", "interrupted", "failed"."""

    status: str
    detail: str = ""
    seconds: float = 0.0


JUDGING = (JudgeTested, Judged, JudgeSaid, JudgeStopped)
EVENTS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


def since_reopened(events: Sequence[Event]) -> Sequence[Event]:
    """The events since the run was last reopened (all of them if it never was): what says whether a cap is reached and
    what is selected."""
    return events[max((place for place, e in enumerate(events) if isinstance(e, RunReopened)), default=0) :]


def attempts_asked(events: Iterable[Event], begun_with: int) -> int:
    """How many attempts the run is to make: as many as it began with, or as it was last reopened for."""
    reopened = [e.attempts for e in events if isinstance(e, RunReopened)]
    return reopened[-1] if reopened else begun_with


def to_json(event: Event) -> Json:
    """The event as a JSON object, its `kind` first; defaults are left out, bytes become {"text": …} or {"b64": …}."""
    return {"kind": event.kind, **public(event)}


def from_json(obj: Mapping[str, Any]) -> Event:
    """The inverse of `to_json`. Raises KeyError for an unknown kind and TypeError for missing fields."""
    return record(EVENTS[obj["kind"]], {k: v for k, v in obj.items() if k != "kind"})


def public(value: Any) -> Any:
    """A record as plain JSON data, by the rules of the trace (for reports, `run.json` and `--json`)."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        try:
            return {"text": value.decode()}
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: public(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.default is dataclasses.MISSING or getattr(value, f.name) != f.default
        }
    if isinstance(value, Mapping):
        return {str(k): public(v) for k, v in value.items()}
    if isinstance(value, Iterable):
        return [public(v) for v in value]
    raise TypeError(f"cannot be written to a trace: {type(value).__name__}")


T = TypeVar("T")
_hints = functools.cache(get_type_hints)
_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}


def _build(hint: Any, value: Any) -> Any:
    """The value as `hint` says. Raises TypeError where it is of another type, ValueError for damaged bytes."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        some = [each for each in inner if each is not type(None)]
        kind = next((each for each in some if type(value) in _PLAIN.get(each, ())), some[0])
        return None if value is None else _build(kind, value)
    if hint is Any or type(value) in _PLAIN.get(str if origin is Literal else hint, ()):
        return value
    if isinstance(value, list) and origin is tuple:
        return tuple(map(_build, repeat(inner[0]) if inner[-1] is ... else inner, value))
    if isinstance(value, dict):
        if origin in (Mapping, dict):
            return dict(zip(value, map(_build, repeat(inner[1]), value.values()), strict=True))
        if hint is bytes:
            return value["text"].encode() if "text" in value else base64.b64decode(value["b64"])
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            hints = _hints(hint)
            return hint(**{k: _build(hints[k], v) for k, v in value.items() if k in hints})
    if hint is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{getattr(hint, '__name__', hint)} is wanted, not {type(value).__name__}")


def record(kind: type[T], value: Any) -> T:
    """The inverse of `public` for a record of the given type. Raises TypeError or ValueError for what is none."""
    made: T = _build(kind, value)
    return made


Mask = Callable[[str], str]
Listener = Callable[[Event], None]

_CARRIED_OUT = {
    "replied": "message",
    "decided": "calls",
    "tree-changed": "tree",
    "witness-recorded": "witness",
    "attempt-ended": "patch",
}
"""What is carried out, now or again after a resume, by kind of event: only known secrets are masked there."""


def mask_strings(value: Any, mask: Mask) -> Any:
    """JSON data with every string masked, keys left as they are; bytes ({"b64": …}) are masked as what they encode."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [mask_strings(each, mask) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"b64"}:
        text = base64.b64decode(value["b64"]).decode("utf-8", "surrogateescape")
        masked = mask(text)
        return value if masked == text else public(masked.encode("utf-8", "surrogateescape"))
    return {key: mask_strings(each, mask) for key, each in value.items()}


def same(one: Event, other: Event) -> bool:
    """Whether two events say the same, whenever each was written."""
    return type(one) is type(other) and dataclasses.replace(one, at=other.at) == other


class Trace:
    """The writer of one trace; its listeners see every event after it is written.

    One process drives a run (see `run_lock`), but others may add to its trace meanwhile, such as an evaluation its
    verdicts: each line is written under a lock on the file, after what a dead writer left of one is cut off.

    `mask` hides secrets and what looks like one. `mask_known`, if given, takes its place in what is carried out (a
    reply's calls, trees, witness tests, patches): there only secrets that are known as such are masked, since a token
    in somebody's test fixture must stay what it was."""

    def __init__(self, path: Path, *, mask: Mask | None = None, mask_known: Mask | None = None) -> None:
        self.path = path
        self._mask = mask
        self._mask_known = mask_known or mask
        self._listeners: list[Listener] = []
        self._packer = Packer()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        with locked(self._file):
            _drop_torn_line(self._file)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def write(self, event: Event) -> Event:
        """Append the event (its `at` is set here), and tell the listeners of it as it was written, which is what it
        gives back.

        Raises DiskFull where the file system takes no more; nothing of the event is kept then."""
        event, plain = self._masked(dataclasses.replace(event, at=time.time()))
        line, written = self._packer.pack(plain)
        self._append(line + b"\n")
        written()
        for listener in self._listeners:
            listener(event)
        return event

    def _masked(self, event: Event) -> tuple[Event, Json]:
        """The event without secrets (the very same where there are none), and as JSON."""
        plain = to_json(event)
        if self._mask is None or self._mask_known is None:
            return event, plain
        rest = dict(plain)
        carried = {name: rest.pop(name) for name in (_CARRIED_OUT.get(event.kind),) if name in rest}
        line = json.dumps(rest, ensure_ascii=True, separators=(",", ":"))
        kept = mask_strings(carried, self._mask_known)
        if (hidden := self._mask(line)) == line and kept == carried:
            return event, plain
        masked = {**json.loads(hidden), **kept, **({"masked": True} if kept != carried else {})}
        return from_json(masked), masked

    def _append(self, line: bytes) -> None:
        with locked(self._file):
            size = _drop_torn_line(self._file)
            try:
                written = 0
                while written < len(line):  # a disk that is nearly full takes a part, and refuses the rest
                    written += self._file.write(line[written:])
            except OSError as error:
                # Where even this fails, the torn line is dropped by whoever writes next.
                with contextlib.suppress(OSError):
                    self._file.truncate(size)
                raise DiskFull(f"cannot write the trace {self.path}: {error.strerror}{MAKE_ROOM}") from error

    def close(self) -> None:
        self._file.close()


def _drop_torn_line(file: FileIO) -> int:
    """Cut off what stands after the last whole line; the size in bytes that is left."""
    size = end = file.seek(0, os.SEEK_END)
    step = 1  # nearly always the last byte ends a line
    while end > 0:
        step = min(step, end)
        file.seek(end - step)
        at = file.read(step).rfind(b"\n")
        if at >= 0:
            end = end - step + at + 1
            break
        end -= step
        step = 65536
    if end != size:
        file.truncate(end)
    return end


def read(path: Path, *, may_be_empty: bool = False) -> Iterator[Event]:
    """The events of a trace, in order. A torn last line is skipped.

    Raises InputError, naming file and line, for a file that is not a trace, a damaged line, or a newer schema; and for
    one that is missing or holds no whole event, unless it `may_be_empty` (a run killed at its very start)."""
    try:
        file = path.open("rb")
    except OSError as error:
        if may_be_empty and isinstance(error, FileNotFoundError):
            return
        raise InputError(f"cannot read the trace {path}: {error.strerror}") from error
    number = 0
    over: dict[int | None, bool] = {}
    packed = Unpacker()
    with file:
        for number, line in enumerate((line for line in file if line.endswith(b"\n")), 1):
            try:
                event = from_json(packed.unpack(json.loads(line)))
                _check(event, over)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not an event of a Troop trace ({error})") from error
            if number == 1:
                if not isinstance(event, RunStarted):
                    raise InputError(f"{path}, line 1: a trace begins with a run-started event, found {event.kind}")
                if event.schema > SCHEMA:
                    raise InputError(
                        f"{path} was written with trace schema {event.schema}, this Troop reads up to {SCHEMA}: update"
                        " Troop"
                    )
            yield event
    if number == 0 and not may_be_empty:
        raise InputError(f"the trace {path} is empty: its run was stopped at its very start; `troop resume` begins it")


def _check(event: Event, over: dict[int | None, bool]) -> None:
    """Raises for an event that cannot stand where it does. `over`: by attempt that began, whether it ended."""
    if isinstance(event, RunStarted):
        _build(str, event.task["id"]), _build(tuple[str, ...], event.settings.get("models", []))
    elif isinstance(event, AttemptStarted) and event.attempt is not None:
        over.setdefault(event.attempt, False)
    elif isinstance(event, (AttemptStarted, AttemptEnded)):
        if event.attempt not in over:
            raise ValueError(f"attempt {event.attempt} never began")
        over[event.attempt] = True
    elif isinstance(event, Verified) and not (event.attempts and all(map(over.get, event.attempts))):
        raise ValueError(f"it is about attempts that never ended, among {list(event.attempts)}")
    elif isinstance(event, Decided) and any({"id", "name", "arguments"} - call.keys() for call in event.calls):
        raise ValueError("a call has no id, name or arguments")
