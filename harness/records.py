"""The data types that travel between modules: frozen, plain, JSON-friendly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Exec:
    """What one command in a sandbox did.

    `stdout`, `stderr`: bytes, cut in the middle beyond the output limit (`truncated`). `exit_code`: as the shell gives
    it, 128+n for a death by signal n; 124 where `timed_out`. `seconds`: wall time inside the sandbox."""

    stdout: bytes
    stderr: bytes
    exit_code: int
    timed_out: bool
    seconds: float
    truncated: bool = False

    @property
    def output(self) -> str:
        """Both streams as text, stdout first; undecodable bytes replaced."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class TestReport:
    """Outcomes of one test run, by test id.

    `valid`: the suite really ran and its report agrees with the exit code; where False nothing may be concluded and
    `reason` says why. `failures`: the short message of each test that did not pass; `durations` in seconds, where
    known. `output`: end of the console output. A test that is not in `outcomes` did not run, which is not a pass."""

    __test__ = False

    outcomes: Mapping[str, Outcome]
    exit_code: int
    timed_out: bool
    valid: bool
    seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    output: str = ""
    reason: str = ""

    @property
    def passed(self) -> frozenset[str]:
        return frozenset(t for t, o in self.outcomes.items() if o == "passed")

    @property
    def failed(self) -> frozenset[str]:
        """Tests that ran and failed or errored."""
        return frozenset(t for t, o in self.outcomes.items() if o in ("failed", "error"))

    @property
    def green(self) -> bool:
        """The run is valid, something passed, and nothing failed."""
        return self.valid and not self.timed_out and bool(self.passed) and not self.failed


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more calls, in disjoint parts: `input` excludes the cached, `output` excludes `reasoning`."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, part) + getattr(other, part) for part in self.__slots__))

    @property
    def total(self) -> int:
        return sum(getattr(self, part) for part in self.__slots__)


Purpose = Literal["plan", "act", "judge", "contact"]


@dataclass(frozen=True, slots=True)
class Charge:
    """What one model call cost. `usd` None: the price is unknown (never 0). `attempt` None: a call of the run (judge).

    `price_source`: "genai-prices", "alias", "gpu-hour", "provider" (its own word) or "unknown". `seconds`: wall time of
    the call, retries excluded. `answered`: False for a retry that may have reached the model but gave no usable answer
    (tokens unknown: zeros). `reported_usd`: what the provider itself says that the call cost."""

    attempt: int | None
    purpose: Purpose
    model: str
    usage: Usage
    usd: float | None
    price_source: str
    seconds: float
    answered: bool = True
    reported_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps. `attempts` and `concurrency` count attempts; the others are per attempt where named so, else per run.

    None means no cap. `usd`, `tokens`, `seconds` (wall) hold for the whole run; `turns`, `attempt_usd`,
    `attempt_seconds` for each attempt; `judge_usd` for the judge's calls of a run."""

    attempts: int = 4
    turns: int = 50
    usd: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    attempt_usd: float | None = None
    attempt_seconds: float | None = None
    judge_usd: float | None = None


WRITERS_FROM = 1000
"""From this index on attempts only write tests: they make no patch and are no samples."""


@dataclass(frozen=True, slots=True)
class WitnessTest:
    """A test written by an attempt to show the bug: `path` is new in the repository, `text` its whole content.

    `failure` is how it failed on the base, as the attempt saw it."""

    attempt: int
    path: str
    text: str
    failure: str = ""


AttemptStatus = Literal[
    "submitted",  # the policy said it is done
    "given",  # a patch that was handed in (`troop select`)
    "tests-passed",  # repair: the failing test and the regression tests pass
    "turn-limit",
    "budget",  # a money, token or time cap of the attempt or the run
    "context-limit",  # the conversation no longer fits the model
    "stuck",  # same call and result three times, or oscillating edits
    "malformed",  # too many malformed replies
    "destroyed",  # it took its own sandbox apart: no command can be started there any more
    "no-failing-test",  # repair without a failing test
    "exhausted",  # repair ran out of mutants
    "infrastructure",  # the world failed after all retries; not a sample
    "interrupted",  # broken off: a person stopped it, or a candidate was good enough; not a sample
    "crashed",  # a defect of ours or of the policy; whatever patch exists is kept
]
ENDED_WELL: frozenset[AttemptStatus] = frozenset({"submitted", "tests-passed"})
NO_SAMPLE: frozenset[AttemptStatus] = frozenset({"infrastructure", "interrupted"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished attempt. `patch`: the diff taken by the harness ("" if nothing changed).

    Patches are `str` everywhere: the diff's bytes decoded as UTF-8 with "surrogateescape", so any byte survives."""

    index: int
    seed: int
    model: str
    status: AttemptStatus
    patch: str
    witness_tests: tuple[WitnessTest, ...] = ()
    report: TestReport | None = None
    turns: int = 0
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the verifier found out about one candidate.

    `regression`: base-green tests with their outcome on the candidate ("missing" = did not run, not a pass). `witness`:
    witness test name -> outcome, only tests that fail on the base. `valid` False: `reason` says why nothing can be
    concluded (does not apply, suite never ran). `said`: for people, what tests that do not pass said."""

    applies: bool
    valid: bool
    regression: Mapping[str, str] = field(default_factory=dict)
    witness: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    said: Mapping[str, str] | None = field(default=None, compare=False)

    @property
    def broken(self) -> tuple[str, ...]:
        """Regression tests (green on the base, not flaky) that do not pass on the candidate."""
        return tuple(sorted(t for t, o in self.regression.items() if o != "passed"))

    @property
    def clean(self) -> bool:
        """Applies, the suite really ran, and no regression test is broken."""
        return self.applies and self.valid and not self.broken


@dataclass(frozen=True, slots=True)
class Candidate:
    """A distinct patch with the attempts that produced it. `id`: "c1", "c2", … in order of first appearance.

    `flags`: hygiene flags of the patch (see `harness.patches.patch`). `evidence` None: not verified."""

    id: str
    patch: str
    attempts: tuple[int, ...]
    flags: tuple[str, ...] = ()
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What one test showed. `on`: "base" or a candidate's id. `outcome`: "passed", "failed", "error" (it could not be
    loaded), or "unsteady" (two runs differ). `tests`: outcome by test id, where it has several. `tail`: end of the
    output."""

    on: str
    outcome: str
    tests: Mapping[str, str] = field(default_factory=dict)
    tail: str = ""


Ranker = Literal["evidence", "rules"]
"""What orders candidates: the fitted ranker, or the rules alone."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's place: `acceptable` may be selected; `why` is one line for a person. By the ranker: its
    `probability` of being right, and in `parts` what counted for or against it in the score, the most important
    first."""

    candidate: str
    acceptable: bool
    why: str
    probability: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice. `candidate` None: nothing acceptable; `ranking[0]` is then the best runner-up.

    `method`: what decided ("only-candidate", "regression", "given", "probe", "witness", "judge-test", "judge",
    "probability", "agreement", "size", "first", "none"). `confidence`: the probability that it is right, 0..1; None
    unless it was calibrated under the conditions at hand, then on `calibrated_on`. `strength`: how far it is shown to
    be right (`harness.evidence.strength`)."""

    candidate: str | None
    method: str
    confidence: float | None
    ranking: tuple[Ranked, ...]
    rationale: str
    ranker: Ranker = "rules"
    strength: str = ""
    calibrated_on: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The hidden tests' word on one patch. `reason` is empty where resolved. `flaky`: it was not so every time."""

    resolved: bool
    fail_to_pass: Mapping[str, str]
    pass_to_pass: Mapping[str, str]
    reason: str = ""
    flaky: bool = False


@dataclass(frozen=True, slots=True)
class FileState:
    """One changed path of a tree: `data` None = deleted; `link` True = `data` is a symlink's target."""

    path: str
    data: bytes | None
    mode: int = 0o644
    link: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """What changed in a workspace since the last snapshot. `left_out`: paths too large to keep (with a reason each)."""

    files: tuple[FileState, ...]
    left_out: tuple[str, ...] = ()


Json = dict[str, Any]
