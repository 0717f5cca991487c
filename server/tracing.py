"""Export of timelines as traces of OpenTelemetry, by OTLP over HTTP (``--otlp-endpoint``; loaded with it only).

Each timeline (``engine.common.timeline``) is a span whose children are its phases. The spans of a request's operations
are children of a span of the request, which belongs to the client's trace if the request has the header ``traceparent``
(https://www.w3.org/TR/trace-context/). Requests without both are no spans. An operation that no request has caused,
such as an exit, is a trace of its own.

The SDK sends the spans in a thread, in batches. Its queue is bounded: what does not fit, or no collector accepts, is
dropped. Functions import the SDK, so that this module can name the packages that are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.common import timeline
from engine.common.errors import Kind, WharfError
from engine.common.threads import run_in_thread
from engine.common.timeline import DONE, Record
from server.version import SERVER_VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_MISSING = (
    "otlp-endpoint: the Python packages opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http are missing (pip"
    " install wharf[otlp])"
)
#: Seconds of one request to the collector, and of the export at the daemon's end.
_REQUEST, _FLUSH = 5, 3
#: The attribute with ``Record.subject``, by ``Record.what``: names of OpenTelemetry's semantic conventions.
_SUBJECTS = {"create": "container.id", "start": "container.id", "exit": "container.id", "pull": "container.image.name"}


class _Traced:
    """A request. Its span is made when it is needed: one that is never ended is not exported."""

    __slots__ = ("_began_ns", "_name", "_parent", "_tracer", "span")

    def __init__(self, tracer: Tracer, name: str, parent: Context | None) -> None:
        self._tracer, self._name, self._parent = tracer, name, parent
        self._began_ns = time.time_ns()
        self.span: Span | None = None
        if parent is not None:
            self.context()

    def context(self) -> Context:
        from opentelemetry.trace import SpanKind, set_span_in_context

        if self.span is None:
            self.span = self._tracer.start_span(
                self._name, context=self._parent, kind=SpanKind.SERVER, start_time=self._began_ns
            )
        return set_span_in_context(self.span)


class Traces:
    """An observer of timelines. Call ``close`` at the daemon's end."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint``: the collector's URL, without the path ``/v1/traces``.

        :raises WharfError: FAILED_PRECONDITION: the packages of OpenTelemetry are missing.
        """
        try:
            import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError:
            raise WharfError(Kind.FAILED_PRECONDITION, _MISSING) from None
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({SERVICE_NAME: "wharfd", SERVICE_VERSION: SERVER_VERSION})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_REQUEST)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("wharfd", SERVER_VERSION)
        timeline.observers.append(self)
        timeline.request = self.request

    async def close(self) -> None:
        """Sends what is left, for some seconds."""
        timeline.observers.remove(self)
        timeline.request = timeline.untraced
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH):
                # Not in the loop's pool, for whose threads the process would wait.
                await run_in_thread(self._provider.shutdown)

    @contextlib.contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[_Traced]:
        """See ``timeline.request``."""
        traced = _Traced(self._tracer, name, _parent(headers))
        token = timeline.parent.set(traced)
        try:
            yield traced
        finally:
            timeline.parent.reset(token)
            if traced.span is not None:
                traced.span.end()

    def ended(self, record: Record) -> None:
        """See ``timeline.Observer``."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        cause = record.parent
        attributes = {_SUBJECTS.get(record.what, "wharf.subject"): record.subject, "wharf.owner": record.owner}
        span = self._tracer.start_span(
            record.what,
            context=cause.context() if isinstance(cause, _Traced) else None,
            start_time=record.began_ns,
            attributes={key: value for key, value in attributes.items() if value},
        )
        if record.result != DONE:
            span.set_status(Status(StatusCode.ERROR, record.error or record.result))
        whole = set_span_in_context(span)
        contexts: dict[str, Context] = {}
        # A phase before its parts.
        for phase in reversed(record.phases):
            child = self._tracer.start_span(
                phase.name,
                context=contexts.get(phase.within, whole),
                start_time=record.began_ns + int(phase.begin * 1e9),
                attributes={"wharf.waits_for": phase.waits_for} if phase.waits_for else None,
            )
            contexts[phase.name] = set_span_in_context(child)
            child.end(record.began_ns + int(phase.end * 1e9))
        span.end(record.began_ns + int(record.seconds * 1e9))


def _parent(headers: Mapping[str, str]) -> Context | None:
    """The client's span; None: the request has no valid ``traceparent``."""
    if "traceparent" not in headers:
        return None
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = TraceContextTextMapPropagator().extract(headers)
    return found if get_current_span(found).get_span_context().is_valid else None


class TracedRequests:
    """Middleware: makes each request the parent of the timelines of its operations."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        names = (b"traceparent", b"tracestate")
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in names}
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The path has names of objects, and spans shall have few names.
        with self._traces.request(scope["method"], headers) as traced:
            try:
                await self._app(scope, receive, note)
            finally:
                if traced.span is not None:
                    traced.span.set_attributes({"http.request.method": scope["method"], "url.path": scope["path"]})
                    if status:
                        traced.span.set_attribute("http.response.status_code", status)
