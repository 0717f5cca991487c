"""Traces of the engine's operations at a collector of OpenTelemetry: within the trace of the client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(ThreadingHTTPServer):
    """``spans``: as they came, with the name of the service that sent them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Span]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Span]:
        return [span for service, span in list(self.spans) if (service, span.name) == ("wharfd", name)]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            name = next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name")
            self.server.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Engine]:
    with engines.wharf("traces", "--otlp-endpoint", collector.endpoint) as engine:
        engine.load_busybox()
        yield engine


def test_a_request_with_a_trace(traced: Engine, collector: Collector) -> None:
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = {"Image": "busybox", "Cmd": ["true"]}
    id = traced.api.request("POST", "/containers/create?name=traced", data=body, headers=header).json()["Id"]
    traced.api.request("POST", f"/containers/{id}/start", headers=header)
    traced.docker("wait", "traced")
    traced.docker("rm", "traced")
    assert until(lambda: {"create", "start", "exit"} <= {span.name for _, span in collector.spans})
    own = [span for span in collector.named("start") if span.trace_id.hex() == TRACE]
    # The start's last phase has this name, too.
    (start,) = (span for span in own if any(each.key == "container.id" for each in span.attributes))
    request = next(span for span in collector.named("POST") if span.span_id == start.parent_span_id)
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    phases = [span for _, span in collector.spans if span.parent_span_id == start.span_id]
    assert {"network", "task", "start"} <= {span.name for span in phases}


def test_a_build_by_buildkit(traced: Engine, collector: Collector) -> None:
    """buildx has no trace of its own here: the call is a trace, with the build's steps."""
    dockerfile = "FROM busybox\nRUN echo traced\n"
    traced.docker("buildx", "build", "-q", "--output", "type=cacheonly", "-", input=dockerfile)
    assert until(lambda: bool(collector.named("build")))
    build = collector.named("build")[-1]
    call = next(span for _, span in collector.spans if span.span_id == build.parent_span_id)
    assert call.name == "moby.buildkit.v1.Control.Solve"
    inside = [span.name for _, span in collector.spans if span.trace_id == build.trace_id]
    assert any("RUN echo traced" in name for name in inside), inside
