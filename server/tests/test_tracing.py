"""Export of timelines as traces: a collector on loopback gets them."""

import asyncio
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.types import Message, Receive, Scope, Send

from engine.common import timeline
from engine.common.errors import Kind, WharfError
from engine.common.timeline import Timeline
from server import tracing
from server.tracing import TracedRequests, Traces

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """``spans``: by name, as they came."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = {}
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._add(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _add(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.setdefault(span.name, []).append(span)

    def one(self, name: str) -> Span:
        (span,) = self.spans[name]
        return span

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def _attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def _send(app: TracedRequests, path: str, **headers: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        return

    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": "POST", "path": path, "headers": fields}, receive, send)


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/start":
        marks = Timeline("start", "c1", "alice")
        with timeline.Part(marks, "").phase("task") as task:
            task.mark("fork")
        marks.done(WharfError(Kind.INTERNAL, "no such file"))
    await send({"type": "http.response.start", "status": 500})
    await send({"type": "http.response.body"})


def test_the_operations_of_a_request_are_in_the_clients_trace(collector: Collector) -> None:
    async def main() -> None:
        traces = Traces(collector.endpoint)
        app = TracedRequests(_application, traces)
        await _send(app, "/start", traceparent=f"00-{TRACE}-{PARENT}-01")
        await traces.close()

    asyncio.run(main())
    request, start, task, fork = map(collector.one, ("POST", "start", "task", "fork"))
    assert collector.services == {"wharfd"}
    assert {span.trace_id.hex() for span in (request, start, task, fork)} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert [span.parent_span_id for span in (start, task, fork)] == [span.span_id for span in (request, start, task)]
    assert _attributes(request) == {
        "http.request.method": "POST",
        "url.path": "/start",
        "http.response.status_code": 500,
    }
    assert _attributes(start) == {"container.id": "c1", "wharf.owner": "alice"}
    assert (start.status.code, start.status.message) == (Status.STATUS_CODE_ERROR, "no such file")
    times = (request.start_time_unix_nano, start.start_time_unix_nano, start.end_time_unix_nano)
    assert sorted(times) == list(times)


def test_requests_without_operation_and_trace_are_no_spans(collector: Collector) -> None:
    async def main() -> None:
        traces = Traces(collector.endpoint)
        app = TracedRequests(_application, traces)
        await _send(app, "/_ping")
        await _send(app, "/_ping", traceparent="00-0-0-00")
        await _send(app, "/start")
        Timeline("exit", "c1").done()
        await traces.close()
        await _send(TracedRequests(_application, traces), "/start")  # nothing is exported any more

    asyncio.run(main())
    assert {name: len(spans) for name, spans in collector.spans.items()} == {
        "POST": 1, "start": 1, "task": 1, "fork": 1, "exit": 1,
    }  # fmt: skip
    assert not collector.one("POST").parent_span_id
    assert collector.one("exit").trace_id != collector.one("start").trace_id


def test_a_client_that_does_not_record_its_trace_is_not_traced(collector: Collector) -> None:
    async def main() -> None:
        traces = Traces(collector.endpoint)
        await _send(TracedRequests(_application, traces), "/start", traceparent=f"00-{TRACE}-{PARENT}-00")
        await traces.close()

    asyncio.run(main())
    assert collector.spans == {}


def test_a_collector_that_does_not_answer_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_FLUSH", 0.2)

    async def main() -> None:
        traces = Traces("http://127.0.0.1:9")
        for _ in range(10_000):
            Timeline("exit", "c1").done()
        await traces.close()
        assert traces not in timeline.observers

    asyncio.run(main())


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(tracing, "import_module", missing)
    with pytest.raises(WharfError, match=r"opentelemetry-sdk and .* \(pip install wharf\[otlp\]\)"):
        Traces("http://127.0.0.1:9")
    assert timeline.request is timeline.untraced


def test_nothing_of_it_is_loaded_without_the_flag() -> None:
    program = "import sys, server.daemon; print([each for each in sys.modules if 'opentelemetry' in each])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert importlib.util.find_spec("opentelemetry.sdk") is not None
