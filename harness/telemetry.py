"""A run as OpenTelemetry spans: run, attempt, turn, model call, command. A listener of the trace's events; off unless
an endpoint is named (OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT).

Model calls carry the attributes of OpenTelemetry's GenAI conventions. No text of a model, an issue or a command is in a
span: only names, numbers and how things ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness import trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NEEDED = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter")  # parents first, as find_spec wants them


def wanted() -> bool:
    """Whether an endpoint is named, and the extra `otel` installed."""
    return any(map(os.environ.get, _ENDPOINTS)) and all(map(find_spec, _NEEDED))


class Spans:
    """One run's spans, from its name and the events that its process writes; `close` sends what is left."""

    def __init__(self, run: str, task: str) -> None:
        """Raises ImportError where the extra `otel` is not installed."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import set_span_in_context

        os.environ.setdefault("OTEL_SERVICE_NAME", "troop")
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer, self._below = self._provider.get_tracer("troop"), set_span_in_context
        self._run = self._span(f"run {run}", None, time.time(), {"troop.run": run, "troop.task": task})
        self._attempts: dict[int | None, Span] = {}
        self._turns: dict[int | None, Span] = {}
        self._calls: dict[str, Span] = {}

    def see(self, event: trace.Event) -> None:
        """Begin and end what the event begins and ends."""
        number, about = event.attempt, dict[str, Any]()
        above = self._turns.get(number) or self._attempts.get(number) or self._run
        if isinstance(event, trace.AttemptStarted):
            about = {"troop.attempt": number, "gen_ai.request.model": event.model, "gen_ai.request.seed": event.seed}
            self._attempts[number] = self._span(f"attempt {number}", self._run, event.at, about)
        elif isinstance(event, trace.Asked) and event.reached:
            if number in self._attempts and event.purpose == "act" and number not in self._turns:
                above = self._turns[number] = self._span("turn", above, event.at, {"troop.attempt": number})
            about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": event.model, "troop.key": event.key}
            self._calls[event.key] = self._span(f"chat {event.model}", above, event.at, about)
        elif isinstance(event, (trace.Replied, trace.Charged)) and (call := self._calls.pop(event.key, None)):
            usage, usd = event.charge.usage, event.charge.usd
            about = {} if usd is None else {"troop.usd": usd}  # a price that is not known is not 0
            about["gen_ai.usage.input_tokens"] = usage.input + usage.cache_read + usage.cache_write
            about["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read
            about["gen_ai.usage.output_tokens"] = usage.output + usage.reasoning
            _end(call, event.at, {**about, "troop.answered": event.charge.answered})
        elif isinstance(event, trace.ToolRan):
            about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": event.name, "troop.ok": event.ok}
            _end(self._span(f"execute_tool {event.name}", above, event.at - event.seconds, about), event.at, {})
        elif isinstance(event, trace.TurnEnded) and (turn := self._turns.pop(number, None)):
            _end(turn, event.at, {"troop.turn": event.turn, "troop.command_seconds": event.command_seconds})
        elif isinstance(event, trace.AttemptEnded) and (attempt := self._attempts.pop(number, None)):
            _end(attempt, event.at, {"troop.status": event.status, "troop.turns": event.turns})
        elif isinstance(event, trace.RunEnded):
            self._run.set_attribute("troop.status", event.status)

    def close(self) -> None:
        """End what is open, innermost first, and send it."""
        for span in (*self._calls.values(), *self._turns.values(), *self._attempts.values(), self._run):
            span.end()
        self._provider.shutdown()

    def _span(self, name: str, above: Span | None, at: float, about: Mapping[str, Any]) -> Span:
        context = None if above is None else self._below(above)
        return self._tracer.start_span(name, context, attributes=about, start_time=int(at * 1e9))


def _end(span: Span, at: float, about: Mapping[str, Any]) -> None:
    span.set_attributes(about)
    span.end(int(at * 1e9))
