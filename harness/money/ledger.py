"""What model calls cost: prices, the fold of all charges, and the budgets that calls reserve from.

A price comes from, in this order: prices written in the alias; the alias's `usd_per_gpu_hour`; `genai-prices` (its
bundled table, offline); else it is unknown, which is `None` and never 0.

Cost of a local GPU: the call's share of the time in which the GPU was busy with our calls,

    usd = usd_per_gpu_hour / 3600 * integral over the call of dt / n(t)

with n(t) the calls in flight at the same server. The shares of concurrent calls add up to the busy time exactly.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from harness.records import Charge, Json, Usage
from harness.trace import Asked, Charged, Event, Replied
from tasks.errors import InputError

GENAI, ALIAS, GPU, PROVIDER, UNKNOWN = "genai-prices", "alias", "gpu-hour", "provider", "unknown"


@dataclass(frozen=True, slots=True)
class Prices:
    """What is known about a model's price. USD per million tokens; `gpu_hour` in USD per hour of the GPU.

    `model`: what the server calls it; `lookup`: `provider/model` for genai-prices (None: the provider is told from
    `base_url`). `cache_read`, `cache_write` None: as `input`."""

    model: str
    base_url: str = ""
    lookup: str | None = None
    input: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    output: float | None = None
    gpu_hour: float | None = None


def price(prices: Prices, usage: Usage | None, gpu_seconds: float) -> tuple[float | None, str]:
    """(USD, source) of a call. `usage` None: the server did not say; then only a GPU or a free model has a price.

    `gpu_seconds`: the call's share of the GPU's time (`GpuMeter`)."""
    if prices.input is not None and prices.output is not None:
        if usage is None:
            free = not any((prices.input, prices.output, prices.cache_read, prices.cache_write))
            return (0.0, ALIAS) if free else (None, UNKNOWN)
        read = prices.input if prices.cache_read is None else prices.cache_read
        write = prices.input if prices.cache_write is None else prices.cache_write
        micro = usage.input * prices.input + usage.cache_read * read + usage.cache_write * write
        return (micro + (usage.output + usage.reasoning) * prices.output) / 1e6, ALIAS
    if prices.gpu_hour is not None:
        return prices.gpu_hour * gpu_seconds / 3600, GPU
    if usage is not None and (usd := _genai_price(prices, usage)) is not None:
        return usd, GENAI
    return None, UNKNOWN


def is_priced(prices: Prices) -> bool:
    """Whether calls of this model get a price (when the server tells its usage)."""
    return price(prices, Usage(input=1, output=1), 1.0)[0] is not None


def check_priced(
    models: Sequence[Prices], usd_cap: float | None, *, allow_unknown: bool, cap: str = "--max-usd"
) -> None:
    """Refuses a money cap that could not be kept. Raises InputError naming the models and the option, `cap`."""
    if usd_cap is None or allow_unknown:
        return
    unknown = [p.model for p in models if not is_priced(p)]
    if unknown:
        raise InputError(
            f"{cap} cannot be kept: the price of {', '.join(unknown)} is not known; give prices or usd_per_gpu_hour "
            "in an alias (troop.toml), or accept it with --allow-unknown-price"
        )


def _genai_price(prices: Prices, usage: Usage) -> float | None:
    found = _genai_model(prices.model, prices.base_url, prices.lookup)
    if found is None:
        return None
    import genai_prices

    model, provider = found
    # genai-prices counts input with the cached tokens in it, and output with the reasoning.
    theirs = genai_prices.Usage(
        input_tokens=usage.input + usage.cache_read + usage.cache_write,
        cache_read_tokens=usage.cache_read or None,
        cache_write_tokens=usage.cache_write or None,
        output_tokens=usage.output + usage.reasoning,
    )
    try:
        return float(genai_prices.calc_price(theirs, model, provider_id=provider).total_price)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=256)
def _genai_model(model: str, base_url: str, lookup: str | None) -> tuple[str, str] | None:
    """(model, provider) where genai-prices knows the pair. Never guesses a provider from the model's name alone: the
    same weights served from one's own machine must not get a vendor's price."""
    provider, _, model = ("", "", model) if lookup is None else lookup.partition("/")
    # No vendor's API is at an address or a bare name; the table, of 20 MB and half a second, is not loaded for those.
    url = base_url if lookup is None and re.search(r"\.[a-z]", urlsplit(base_url).hostname or "") else ""
    if not model or not (provider or url):
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        owner, _ = get_snapshot().find_provider_model(model, None, provider or None, url or None)
    except LookupError:
        return None
    return model, str(owner.id)


class GpuMeter:
    """Shares the time of one server among the calls in flight: see the formula in the module's docstring."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._share = 0.0
        self._at = clock()

    def start(self) -> float:
        """A call begins; the mark is to be handed to `stop`."""
        self._advance()
        self._in_flight += 1
        return self._share

    def stop(self, mark: float) -> float:
        """The call has ended; answers its share in seconds."""
        self._advance()
        self._in_flight -= 1
        return self._share - mark

    def _advance(self) -> None:
        now = self._clock()
        if self._in_flight:
            self._share += (now - self._at) / self._in_flight
        self._at = now


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger. `known_usd`: the sum of what has a price. `calls`: answered ones; `unanswered`: retries
    that may have reached the model; `unpriced`: calls (of both kinds) whose price is unknown. `seconds`: of all calls,
    added. `reported_usd`: what providers themselves say they charge (None: none says), and `reported_as` what the calls
    of which they say it cost by our prices."""

    usage: Usage = field(default_factory=Usage)
    known_usd: float = 0.0
    calls: int = 0
    unanswered: int = 0
    unpriced: int = 0
    seconds: float = 0.0
    reported_usd: float | None = None
    reported_as: float = 0.0

    @property
    def exact(self) -> bool:
        return self.unpriced == 0

    @property
    def usd(self) -> float | None:
        """The cost: None where no call has a known price; a lower bound where not `exact`."""
        return None if self.unpriced and self.unpriced == self.calls + self.unanswered else self.known_usd

    def to_json(self) -> Json:
        return {
            "usd": None if self.usd is None else round(self.usd, 8),
            "exact": self.exact,
            "calls": self.calls,
            "unanswered": self.unanswered,
            "unpriced": self.unpriced,
            "usage": asdict(self.usage),
            "seconds": round(self.seconds, 3),
            **({} if self.reported_usd is None else {"reported_usd": round(self.reported_usd, 8)}),
        }


def add_charge(line: Line, charge: Charge) -> Line:
    """The line with one more charge."""
    told = charge.reported_usd
    return Line(
        usage=line.usage + charge.usage,
        known_usd=line.known_usd + (charge.usd or 0.0),
        calls=line.calls + charge.answered,
        unanswered=line.unanswered + (not charge.answered),
        unpriced=line.unpriced + (charge.usd is None),
        seconds=line.seconds + charge.seconds,
        reported_usd=line.reported_usd if told is None else (line.reported_usd or 0.0) + told,
        reported_as=line.reported_as + (0.0 if told is None else charge.usd or 0.0),
    )


def money(line: Line) -> str:
    """The cost in a few characters: `?` where unknown, `≥` before a lower bound, `-` where nothing was called."""
    if not line.calls + line.unanswered:
        return "-"
    if line.usd is None:
        return "?"
    return f"{'' if line.exact else '≥'}${line.usd:.{2 if line.usd >= 100 else 4}f}"


_BY = ("by_purpose", "by_attempt", "by_model")
RUN = "run"
"""The `by_attempt` key of charges that belong to no attempt (the judge's)."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The fold of all charges. `by_attempt` keys: attempt indexes as text, `RUN` for the run's own calls."""

    total: Line
    by_attempt: Mapping[str, Line]
    by_purpose: Mapping[str, Line]
    by_model: Mapping[str, Line]
    sources: Mapping[str, int]

    @classmethod
    def fold(cls, charges: Iterable[Charge]) -> "Ledger":
        total, sources = Line(), Counter[str]()
        attempts, purposes, models = (defaultdict[str, Line](Line) for _ in range(3))
        for charge in charges:
            total = add_charge(total, charge)
            attempt = RUN if charge.attempt is None else str(charge.attempt)
            for lines, key in ((attempts, attempt), (purposes, charge.purpose), (models, charge.model)):
                lines[key] = add_charge(lines[key], charge)
            sources[charge.price_source] += 1
        order = sorted(attempts, key=lambda key: (key == RUN, 0 if key == RUN else int(key)))
        return cls(total, {key: attempts[key] for key in order}, dict(purposes), dict(models), dict(sources))

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Ledger":
        """The ledger of a trace."""
        return cls.fold(charges(events))

    def to_json(self) -> Json:
        """The `cost` of report.json."""
        return {
            **self.total.to_json(),
            **{each: {k: line.to_json() for k, line in getattr(self, each).items()} for each in _BY},
            "price_sources": dict(self.sources),
        }


def charges(events: Iterable[Event]) -> Iterable[Charge]:
    """Every charge of a trace, in order; then what is unknown of calls of which it does not tell the end."""
    events = list(events)
    for event in (*events, *unsettled(events)):
        if isinstance(event, (Replied, Charged)):
            yield event.charge


def unsettled(events: Iterable[Event]) -> list[Charged]:
    """The charges, of unknown price, of calls that were sent and of which nothing more is told: they are under way, or
    were when the process was killed."""
    sent: dict[str, Asked] = {}
    for event in events:
        if isinstance(event, (Asked, Replied, Charged)):
            sent.pop(event.key, None)
        if isinstance(event, Asked) and event.reached:
            sent[event.key] = event
    unknown: Json = {"usage": Usage(), "usd": None, "price_source": UNKNOWN, "seconds": 0.0, "answered": False}
    lost = {key: Charge(e.attempt, e.purpose, e.model, **unknown) for key, e in sent.items()}
    return [Charged(attempt=charge.attempt, key=key, charge=charge) for key, charge in lost.items()]


def bound(prices: Prices, input_tokens: int, output_tokens: int) -> float | None:
    """The most that a call can cost by its tokens, nothing of it cached; None where tokens have no known price."""
    if prices.input is None and prices.gpu_hour is not None:
        return None
    fresh, _ = price(prices, Usage(input=input_tokens, output=output_tokens), 0.0)
    written, _ = price(prices, Usage(cache_write=input_tokens, output=output_tokens), 0.0)
    return None if fresh is None else max(fresh, written or 0.0)
