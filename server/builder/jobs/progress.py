"""The progress of a build in BuildKit's messages: vertexes, their statuses, logs and warnings."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from engine.api.types import to_timestamp
from engine.common.errors import WharfError
from engine.common.timeline import current
from server.builder.dockerfile.checks import url
from server.builder.dockerfile.errors import Warning
from server.builder.plan.steps import Base, Step
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.pb import ops_pb2
from server.builder.solver.output import STARTED

Send = Callable[[pb.StatusResponse], None]


class Vertex:
    """One entry of the display. :meth:`status` adds a line below it, such as a transfer's progress."""

    def __init__(self, send: Send, name: str, identity: str, inputs: Sequence[str] = ()) -> None:
        self._send = send
        self._message = pb.Vertex(name=name, digest=_digest(identity), inputs=inputs)

    @property
    def digest(self) -> str:
        return self._message.digest

    @property
    def ended(self) -> bool:
        return self._message.HasField("completed")

    def announce(self) -> None:
        """Show the vertex before it starts."""
        self._send(pb.StatusResponse(vertexes=[self._message]))

    def start(self, at_ns: int = 0) -> None:
        """The work starts, or started at ``at_ns``; may follow an end, when the work is resumed."""
        self._message.started.CopyFrom(to_timestamp(at_ns or time.time_ns()))
        self.announce()

    def finish(self, error: str = "", *, cached: bool = False) -> None:
        """The work has ended."""
        if not self._message.HasField("started"):
            self._message.started.CopyFrom(to_timestamp(time.time_ns()))
        self._message.completed.CopyFrom(to_timestamp(time.time_ns()))
        self._message.cached = cached
        self._message.error = error
        self.announce()

    def log(self, stream: int, data: bytes, at_ns: int) -> None:
        """Send output of the vertex's process."""
        entry = pb.VertexLog(vertex=self.digest, timestamp=to_timestamp(at_ns), stream=stream, msg=data)
        self._send(pb.StatusResponse(logs=[entry]))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start and finish around a block."""
        self.start()
        try:
            with current().phase(self._message.name):
                yield
        except WharfError as error:
            self.finish(error.message)
            raise
        except BaseException as error:
            self.finish("canceled" if not isinstance(error, Exception) else str(error))
            raise
        self.finish()

    @contextmanager
    def status(self, name: str) -> Iterator[Callable[[int], None]]:
        """Add a line below the vertex; call the yielded function with the current number of bytes."""
        message = pb.VertexStatus(ID=name, vertex=self.digest, name=name)
        message.started.CopyFrom(to_timestamp(time.time_ns()))

        def report(current: int = 0) -> None:
            message.current = current
            message.timestamp.CopyFrom(to_timestamp(time.time_ns()))
            self._send(pb.StatusResponse(statuses=[message]))

        report()
        try:
            yield report
        finally:
            message.completed.CopyFrom(to_timestamp(time.time_ns()))
            report(message.current)

    def warn(self, warning: Warning, file: str, text: bytes) -> None:
        """Send a finding of a build check, with its lines."""
        message = pb.VertexWarning(vertex=self.digest, level=1, url=url(warning.rule))
        message.short = f"{warning.rule}: {warning.message} (line {warning.span.first})".encode()
        message.info.CopyFrom(ops_pb2.SourceInfo(filename=file, data=text, language="Dockerfile"))
        span = message.ranges.add()
        span.start.line, span.end.line = warning.span.first, warning.span.last
        self._send(pb.StatusResponse(warnings=[message]))


def _digest(identity: str) -> str:
    return "sha256:" + hashlib.sha256(identity.encode()).hexdigest()


def _key(step: Step) -> int | str:
    """The key of a step's vertex; stages with the same base image share the vertex of ``FROM``."""
    base = step.operation
    return f"{base.digest} {base.chain_id}" if isinstance(base, Base) else id(step)


class StepProgress:
    """Shows steps as vertexes (server.builder.operations.interfaces.Progress)."""

    def __init__(self, send: Send, prefix: str) -> None:
        self._send, self._prefix = send, prefix
        self._vertexes: dict[int | str, Vertex] = {}
        self._cached: set[int | str] = set()
        self.failed: Step | None = None
        """The step that failed first."""

    def vertex(self, step: Step) -> Vertex:
        """Return the vertex of a step; announce it once."""
        key = _key(step)
        if key not in self._vertexes:
            inputs = [self.vertex(item).digest for item in step.inputs]
            vertex = Vertex(self._send, step.name, f"{self._prefix} {key}", inputs)
            self._vertexes[key] = vertex
            vertex.announce()
        return self._vertexes[key]

    def started(self, step: Step, since_ns: int = 0) -> None:
        if not self._shown(step):
            # Clients show the times of output relative to the start.
            self.vertex(step).start(since_ns)

    def _shown(self, step: Step) -> bool:
        """Whether another stage's ``FROM`` has already finished this vertex."""
        return isinstance(step.operation, Base) and self.vertex(step).ended

    def cached(self, step: Step) -> None:
        self._cached.add(_key(step))

    def done(self, step: Step, error: str = "") -> None:
        if error and self.failed is None and error != "canceled":
            self.failed = step
        if not self._shown(step):
            self.vertex(step).finish(error, cached=_key(step) in self._cached)

    @property
    def clips(self) -> bool:
        return True

    def output(self, step: Step, stream: int, data: bytes, at_ns: int) -> None:
        if stream != STARTED:
            self.vertex(step).log(stream, data, at_ns)
