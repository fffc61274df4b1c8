"""What a model's server bears, found out by about ten small calls through the same client and wire as an attempt's: the
findings behind `troop doctor --model`.

The calls come to a few hundred tokens. What only asks whether a server would refuse something leaves what is known of
the server as it was.
"""

import asyncio
import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from agent.attempt.reading import read, sent_back
from agent.attempt.tools import TOOLS
from agent.config import PROVIDERS, Alias, key_of, prices_of
from agent.models.client import ModelClient, Patience
from agent.models.connections import Connections
from agent.models.contact import context_of, entry_of, listed
from agent.models.dialect import Dialect
from agent.models.failures import in_one_line
from agent.models.wires.base import Wire, Wish
from harness.money.ledger import Ledger, Line, Prices, price
from harness.records import Json, Usage
from harness.sandbox.base import Finding
from harness.trace import Event, InfrastructureFailed, Replied
from tasks.errors import ContextTooLong, EndpointFailed
from tasks.say import Say

LOOK_SECONDS = 5.0
CONTEXT_SECONDS = 30.0
OUTPUT = 256
"""Tokens of an answer at most: room for some thoughts, of which a model without them needs none."""
FAR_TOO_LONG = 10_000_000
"""As a limit on an answer: refused at no cost, often with the true limits."""
LONGEST_WORDS = 100
PATIENCE = Patience(tries=2, allowance=60.0)
_SYSTEM = {"role": "system", "content": "You are being tried out. Use as few words as you can."}
_FIRST = {"role": "user", "content": "Say ok."}
_BOTH = {"role": "user", "content": "Call the tool read for a.txt and for b.txt, both in this one answer."}
_AGAIN = {"role": "user", "content": "Say ok once more."}


@dataclass(frozen=True, slots=True)
class Trial:
    """What was `tried`, what was `found`, and what Troop `does` about it, in words."""

    tried: str
    found: str
    does: str = ""


@dataclass(frozen=True, slots=True)
class Portrait:
    """What was found out about an alias. `settings`: what its table in troop.toml should say besides what it says;
    `cost`: of the calls. `error`: why the model cannot be used, in one sentence, "" where it can."""

    alias: Alias
    wire: str
    trials: Sequence[Trial]
    settings: Json
    cost: Line
    error: str = ""


async def portray(alias: Alias, say: Say) -> Portrait:
    """Try the alias out; `say` hears what is being tried."""
    async with contextlib.aclosing(Connections()) as connections:
        try:
            sitting = _Sitting(alias, connections, say)
        except EndpointFailed as failed:  # the key is missing, or a package
            return Portrait(alias, alias.wire or "chat", (), {}, Line(), str(failed))
        try:
            await sitting.all()
        except EndpointFailed as failed:
            return sitting.portrait(str(failed))
        return sitting.portrait("")


@dataclass(slots=True)
class _Sitting:
    """The trials of one alias, in order."""

    alias: Alias
    connections: Connections
    say: Say
    client: ModelClient = field(init=False)
    events: list[Event] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    tools: bool = True
    first: Json = field(default_factory=dict)
    failed: EndpointFailed = field(default_factory=lambda: EndpointFailed(""))

    def __post_init__(self) -> None:
        self.client = ModelClient(self.alias, self.connections, record=self._record, patience=PATIENCE)

    def _record(self, event: Event) -> Event:
        self.events.append(event)
        return event

    @property
    def wire(self) -> Wire:
        return self.client.wire

    @property
    def dialect(self) -> Dialect:
        return self.wire.dialect

    def note(self, tried: str, found: str, does: str = "") -> None:
        self.trials.append(Trial(tried, found, does))

    async def all(self) -> None:
        """Raises EndpointFailed where the server answers nothing."""
        self.say(f"trying {self.alias.alias}: its list of models")
        entry = entry_of(await listed(self.client), self.alias.name)
        told = context_of(entry) if entry else None
        self.dialect.context = told
        await self._answer()
        talk = await self._tools()  # early: it may lead to another API, which has other parameters
        await self._sampling()
        await self._order(talk)
        await self._stream()
        await self._limits(told)
        self._usage()

    async def ask(
        self,
        tried: str,
        messages: Sequence[Json],
        *,
        tools: bool = False,
        keep: bool = True,
        output: int = OUTPUT,
        **sampling: Any,
    ) -> tuple[Replied | None, str, str]:
        """(answer, the server's words where it refused, what Troop does otherwise from now on). `keep` False: what was
        learnt is forgotten again."""
        self.say(f"trying {self.alias.alias}: {tried}")
        mark, wire, before = len(self.events), self.wire, copy.deepcopy(self.dialect)
        reply, words, offered = None, "", [TOOLS["read"].schema()] if tools else ()
        try:
            reply = await self.client.complete(
                messages, offered, purpose="contact", attempt=None, key=tried, output=output, **sampling
            )
        except EndpointFailed as error:
            if isinstance(error, ContextTooLong) and output == OUTPUT:
                raise  # what is as short as this has to fit
            self.failed, words = error, self._words(error)
        finally:
            if not keep:
                wire.dialect = before
        notes = [event.detail for event in self.events[mark:] if isinstance(event, InfrastructureFailed)]
        learnt = [note.split("; from now on ", 1) for note in notes if "; from now on " in note]
        if learnt and not words:
            words = learnt[0][0].removeprefix(f"{self.alias.alias}: ")
        return reply, in_one_line(words, LONGEST_WORDS), "; ".join(does for _, does in learnt)

    def _words(self, error: EndpointFailed) -> str:
        """The server's own, where the error comes from them."""
        cause = error.__cause__
        failure = self.wire.failure(cause) if isinstance(cause, Exception) else None
        return self.client.mask(f"{failure.what}: {failure.detail}") if failure else str(error)

    async def _answer(self) -> None:
        reply, words, does = await self.ask("an answer", [_SYSTEM, _FIRST])
        if reply is None:
            raise self.failed
        self.first = reply.message
        self.note("an answer", f"in {reply.charge.seconds:.1f} s" + (f", after {words}" if words else ""), does)

    async def _sampling(self) -> None:
        """Temperature and seed in one call: a server refuses them one by one, or both."""
        varied = self.wire.request([_FIRST], (), Wish(7, 0.7, OUTPUT))
        _, words, _ = await self.ask("temperature, seed", [_SYSTEM, _FIRST], seed=7, temperature=0.7)
        for name in ("temperature", "seed"):
            if name in self.alias.sampling:
                self.note(name, "set by the alias")
            elif name in self.dialect.left_out:
                self.note(name, f"refused ({words})", "leaves it out")
            else:
                self.note(name, "taken" if name in varied else "not part of this API")

    async def _tools(self) -> list[Json]:
        """A call of tools, the turn after it, and the same again; answers the conversation so far."""
        reply, words, does = await self.ask("tools", [_SYSTEM, _BOTH], tools=True)
        reading = read(reply.message if reply else self.first, 1)
        said = sent_back(reply.message if reply else self.first, reading)
        calls = said.get("tool_calls", []) if reply else []
        text = [_SYSTEM, _FIRST, sent_back(self.first, read(self.first, 0)), _AGAIN]
        if reply is None:
            self.tools = False
            self.note("tools", f"refused ({words})", "uses the text protocol")
        elif calls:
            self.note("tools", "called", does if self.alias.tools else "uses the text protocol, as the alias says")
            one = "one call at a time" if len(calls) == 1 else f"{len(calls)} calls in one answer"
            self.note("parallel calls", one, "carries out each")
        elif reading.calls:
            self.note("tools", "called in the text of the answer", "finds the call there")
        else:
            self.note("tools", "taken, but the model called none", does or "set tools = false if that stays so")
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
        talk = [_SYSTEM, _BOTH, said, *results] if calls else text
        answer, words, does = await self.ask("the next turn", talk, tools=bool(calls))
        if answer is None and calls:
            self.note("tool results", f"refused ({words})", "uses the text protocol")
            self.tools, talk = False, text
            answer, words, does = await self.ask("the next turn", talk)
        if answer is None:
            raise EndpointFailed(f"{self.alias.alias} answers once, but refuses the next turn ({words}).")
        self.note("the next turn", "taken" + (f", after {words}" if words else ""), does)
        self.note("thoughts", "told, and taken back" if reading.thoughts else "none told")
        again, _, _ = await self.ask("prompt cache", talk, tools=talk[-1]["role"] == "tool")
        cached = again.charge.usage.cache_read if again else 0
        seen = f"{cached} tokens of the same prompt" if cached else "none told (short prompt)"
        self.note("prompt cache", seen, "" if cached else "many begin at 1,024 tokens")
        return talk

    async def _order(self, talk: Sequence[Json]) -> None:
        """What Troop never sends; told because other programs do."""
        after = {"user after a result": [*talk, _FIRST]} if talk[-1].get("role") == "tool" else {}
        for tried, chat in {**after, "two user turns": [_SYSTEM, _FIRST, _AGAIN]}.items():
            reply, words, _ = await self.ask(tried, chat, tools=tried in after, keep=False)
            self.note(tried, f"refused ({words})" if words or not reply else "taken", "never sends that")

    async def _stream(self) -> None:
        if self.dialect.stream:
            self.note("streaming", "the only way" if not self.alias.stream else "as the alias says", "streams")
            return
        self.dialect.stream = True
        reply, words, _ = await self.ask("streaming", [_SYSTEM, _FIRST], keep=False)
        self.dialect.stream = False
        told = "with usage" if reply and reply.charge.usage.total else "without usage"
        found = f"refused ({words})" if words or reply is None else f"taken, {told}"
        self.note("streaming", found, "does not stream, unless told")

    async def _limits(self, told: int | None) -> None:
        """The context and the longest answer, where not known from a call that no server grants."""
        source = "its list of models" if told else "its refusal"
        self.dialect.context = told or self.dialect.context  # another API does not know it yet
        name, most = self.dialect.output_name, self.dialect.most_output
        if not told and self.alias.context is None:
            known = copy.deepcopy(self.dialect)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONTEXT_SECONDS):
                    await self.ask("context", [_FIRST], output=FAR_TOO_LONG)
            told = known.context = self.dialect.context
            most = known.most_output = self.dialect.most_output
            self.wire.dialect = known
        bears = f"{told:,} tokens ({source})" if told else "not told"
        does = "compacts before {:,}" if told or self.alias.context else "assumes {:,} (context in the alias)"
        self.note("context", bears, does.format(self.client.context))
        self.note("limit on answers", name + (f", at most {most:,}" if most else ""), "sends it under a cap")

    def _usage(self) -> None:
        replies = [event.charge for event in self.events if isinstance(event, Replied)]
        summed = sum((charge.usage for charge in replies), Usage())
        told = [each.name for each in fields(Usage) if getattr(summed, each.name)]
        told += ["cost"] if any(charge.reported_usd is not None for charge in replies) else []
        self.note("usage told", ", ".join(told) or "none", "" if told else "cannot price the calls")

    def portrait(self, error: str) -> Portrait:
        """What was found out, as long as the connections are open."""
        settings = {} if error else self.settings()
        return Portrait(self.alias, self.wire.name, self.trials, settings, Ledger.of(self.events).total, error)

    def settings(self) -> Json:
        """What the alias's table should say besides what it says."""
        alias, dialect, wire = self.alias, self.dialect, self.wire.name
        found: Json = {
            "wire": (wire, alias.wire or "chat"),
            "tools": (alias.tools and self.tools, alias.tools),
            "stream": (dialect.stream, alias.stream),
            "system_role": (dialect.system, alias.system_role),
            "context": (self.client.context if dialect.context else alias.context, alias.context),
        }
        changed: Json = {name: now for name, (now, before) in found.items() if now != before}
        refused = {"seed", "temperature"} & dialect.left_out - alias.sampling.keys()
        return changed | ({"sampling": dict.fromkeys(sorted(refused), False)} if refused else {})


def price_of(alias: Alias) -> Json:
    """The price that is used: USD per million tokens by kind (None: unknown) and `source`."""
    prices: Prices = prices_of(alias)
    kinds = [each.name for each in fields(Usage) if each.name != "reasoning"]
    told = {name: price(prices, Usage(**{name: 1000}), 0.0)[0] for name in kinds}
    _, source = price(prices, Usage(1, output=1), 1.0)
    by_token = {name: None if usd is None or prices.gpu_hour else round(usd * 1000, 6) for name, usd in told.items()}
    return {**by_token, "gpu_hour": prices.gpu_hour, "source": source}


def table_of(said: str, alias: Alias) -> Json:
    """The table of an alias in troop.toml for the model that somebody called `said`."""
    if said.partition("/")[0] in PROVIDERS and alias.key_env:
        return {"model": said}
    own = {each.name: getattr(alias, each.name) for each in fields(Alias)}
    plain = {each.name: each.default for each in fields(Alias)} | {"sampling": {}}
    return {name: value for name, value in own.items() if name != "alias" and value != plain[name]}


async def look(alias: Alias, connections: Connections) -> Finding:
    """Whether the key is there, and the endpoint, by one request for its list of models; what to type where not."""
    name, key = alias.alias, f"export {alias.key_env}=..."
    try:
        key_of(alias)
    except EndpointFailed as error:
        return Finding(name, False, str(error), key)
    there = f"base_url in [models.{name}]" if "/" not in name else "the URL"
    try:
        client = ModelClient(alias, connections, record=lambda event: event)
        async with asyncio.timeout(LOOK_SECONDS):
            models = await listed(client)
    except TimeoutError:
        return Finding(name, False, f"{alias.base_url} says nothing within {LOOK_SECONDS:g} s", f"correct {there}")
    except EndpointFailed as error:
        refused = alias.key_env is not None and "refused" in str(error)
        return Finding(name, False, str(error), key if refused else f"start the server, or correct {there}")
    entry, names = entry_of(models, alias.name), [str(model.get("id")) for model in models]
    if models and entry is None:
        has = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        said = f"{alias.base_url} does not list {alias.name}; it lists {has}"
        return Finding(name, False, said, f"troop doctor --model {name} tries a call")
    context = context_of(entry) if entry else None
    more = f", context {context:,}" if context else ""
    return Finding(name, True, f"{alias.base_url} {'lists ' + alias.name if entry else 'answers'}{more}")
