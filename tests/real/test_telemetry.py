"""A run's spans as an OTLP receiver gets them: a real HTTP server that decodes the protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent import solve
from harness import telemetry
from tests.support.calculator import SOLVING, make_repository, settings, task
from tests.support.model_server import serving


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    spans: list[Span] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest()
            request.ParseFromString(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            assert self.path == "/v1/traces"
            spans.extend(span for r in request.resource_spans for scope in r.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield spans
    server.shutdown()


def about(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


@pytest.mark.network
@pytest.mark.bubblewrap
def test_run_attempt_turn_call_and_command_stand_below_each_other(tmp_path: Path, received: list[Span]) -> None:
    with serving(SOLVING) as server:
        solve(task(make_repository(tmp_path / "calc")), settings(server.url, tmp_path, judge_model="none"))
    by_id = {span.span_id: span for span in received}
    (run,) = [span for span in received if not span.parent_span_id]
    assert run.name.startswith("run calculator") and about(run)["troop.status"] == "selected"
    (edit,) = [span for span in received if span.name == "execute_tool edit"]
    turn = by_id[edit.parent_span_id]
    attempt = by_id[turn.parent_span_id]
    assert (turn.name, attempt.name, by_id[attempt.parent_span_id]) == ("turn", "attempt 0", run)
    assert about(attempt)["troop.status"] == "submitted" and about(edit)["gen_ai.tool.name"] == "edit"
    calls = [span for span in received if about(span).get("gen_ai.operation.name") == "chat"]
    assert {about(span)["gen_ai.provider.name"] for span in calls} == {"openai"}
    assert len(calls) == len(SOLVING) and all(about(span)["gen_ai.usage.input_tokens"] > 0 for span in calls)
    assert [by_id[span.parent_span_id].name for span in calls].count("turn") == len(SOLVING) - 1
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in received)
    assert all(
        turn.start_time_unix_nano <= s.start_time_unix_nano for s in received if s.parent_span_id == turn.span_id
    )
    assert not any("values[1:]" in str(about(span)) for span in received), "no text of a model is in a span"


@pytest.mark.network
@pytest.mark.bubblewrap
@pytest.mark.parametrize("lacking", ["endpoint", "extra", "receiver"])
def test_a_run_is_what_it_was_where_nothing_can_be_sent(
    tmp_path: Path, received: list[Span], monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if lacking == "endpoint":
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    elif lacking == "extra":
        monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    else:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with serving(SOLVING) as server:
        made = task(make_repository(tmp_path / "calc"))
        solution = solve(made, settings(server.url, tmp_path, judge_model="none"))
    assert solution.patch and not received
