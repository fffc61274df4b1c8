"""A run as OpenTelemetry spans: run, attempt, turn, model call, command. A listener of the trace's events; off unless
an endpoint is named (OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT).

Model calls carry the attributes of OpenTelemetry's GenAI conventions. No text of a model, an issue or a command is in a
span: only names, numbers and how things ended.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness import trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NEEDED = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter")  # parents first, as find_spec wants them
_OTHERWISE = {"mistral": "mistral_ai", "google": "gcp.gemini", "x-ai": "x_ai"}
_OTHERWISE |= dict.fromkeys(("", "chat", "responses"), "openai")
"""How the conventions name vendors that Troop's price lists name otherwise, and whose API the wires speak."""


@contextlib.asynccontextmanager
async def exported(
    log: trace.Trace, run: str, task: str, vendors: Callable[[], Mapping[str, str]]
) -> AsyncIterator[None]:
    """Within: what the run writes into its trace is sent as spans, where that is wanted. `vendors`: by model, whose
    API it has."""
    async with contextlib.AsyncExitStack() as stack:
        if any(map(os.environ.get, _ENDPOINTS)) and all(map(find_spec, _NEEDED)):
            spans = _Spans(run, task, vendors())
            log.listen(spans.see)
            # In a thread, for a receiver that is gone is waited for, which must not hold up other runs.
            stack.push_async_callback(asyncio.to_thread, spans.close)
        yield


class _Spans:
    """One run's spans, from its name and the events that its process writes; `close` sends what is left (blocking)."""

    def __init__(self, run: str, task: str, vendors: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import set_span_in_context

        os.environ.setdefault("OTEL_SERVICE_NAME", "troop")
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer, self._below = self._provider.get_tracer("troop"), set_span_in_context
        self._open: dict[str, Span] = {}
        self._vendors = {model: _OTHERWISE.get(vendor, vendor) for model, vendor in vendors.items()}
        self._begin("run", f"run {run}", time.time(), {"troop.run": run, "troop.task": task}, None)

    def see(self, event: trace.Event) -> None:
        """Begin and end what the event begins and ends."""
        at, attempt, turn = event.at, f"attempt {event.attempt}", f"turn of {event.attempt}"
        above = next((self._open[key] for key in (turn, attempt, "run") if key in self._open), None)
        if isinstance(event, trace.AttemptStarted):
            about = {"gen_ai.request.model": event.model, "gen_ai.request.seed": event.seed}
            self._begin(attempt, attempt, at, {"troop.attempt": event.attempt, **about}, above)
        elif isinstance(event, trace.Asked) and event.reached:
            if event.purpose == "act" and turn not in self._open:
                above = self._begin(turn, "turn", at, {"troop.attempt": event.attempt}, above)
            about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": event.model, "troop.key": event.key}
            about["gen_ai.provider.name"] = self._vendors.get(event.model, "openai")
            self._begin(event.key, f"chat {event.model}", at, about, above)
        elif isinstance(event, (trace.Replied, trace.Charged)):
            usage, usd = event.charge.usage, event.charge.usd
            about = {} if usd is None else {"troop.usd": usd}  # a price that is not known is not 0
            about["gen_ai.usage.input_tokens"] = usage.input + usage.cache_read + usage.cache_write
            about["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read
            about["gen_ai.usage.output_tokens"] = usage.output + usage.reasoning
            self._end(event.key, at, {**about, "troop.answered": event.charge.answered})
        elif isinstance(event, trace.ToolRan):
            name = f"execute_tool {event.name}"
            about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": event.name, "troop.ok": event.ok}
            self._begin(name, name, at - event.seconds, about, above)
            self._end(name, at, {})
        elif isinstance(event, trace.TurnEnded):
            self._end(turn, at, {"troop.turn": event.turn, "troop.command_seconds": event.command_seconds})
        elif isinstance(event, trace.AttemptEnded):
            self._end(attempt, at, {"troop.status": event.status, "troop.turns": event.turns})
        elif isinstance(event, trace.RunEnded):
            self._end("run", at, {"troop.status": event.status})

    def close(self) -> None:
        """End what is open, innermost first, and send it."""
        for key in reversed(list(self._open)):
            self._end(key, time.time(), {})
        self._provider.shutdown()

    def _begin(self, key: str, name: str, at: float, about: dict[str, Any], above: "Span | None") -> "Span":
        context = None if above is None else self._below(above)
        self._open[key] = self._tracer.start_span(name, context, attributes=about, start_time=int(at * 1e9))
        return self._open[key]

    def _end(self, key: str, at: float, about: dict[str, Any]) -> None:
        if span := self._open.pop(key, None):
            span.set_attributes(about)
            span.end(int(at * 1e9))
