"""A failed build for a client of BuildKit: a status with the lines of the Dockerfile and the step's vertex.

The details are gRPC's (``google.rpc.Status``); their type names are those that BuildKit's clients register.
"""

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from engine.api.errors import from_status, to_code
from engine.api.pb.rpc_status_pb2 import Status
from engine.api.serving import Detailed
from engine.build.dockerfile.errors import DockerfileError, Span
from engine.build.solve import StepFailed
from engine.buildkit.pb import errdefs_pb2, ops_pb2
from engine.errors import Kind, WharfError

_TYPES = "github.com/moby/buildkit"


def _any(name: str, message: Message) -> Any:
    return Any(type_url=f"{_TYPES}/errdefs.{name}+json", value=message.SerializeToString())


def span_of(error: WharfError) -> Span | None:
    """The lines that an error is about."""
    if isinstance(error, DockerfileError | StepFailed):
        return error.span
    return None


def detailed(error: WharfError, *, file: str, text: bytes, vertex: str = "") -> WharfError:
    """The error with its details: which lines of which file, and which vertex."""
    if isinstance(error, Detailed):
        return error
    message = error.sentence if isinstance(error, DockerfileError) else error.message
    span = span_of(error)
    kind = Kind.INTERNAL if isinstance(error, StepFailed) else error.kind
    status = Status(code=to_code(kind).value[0], message=message)
    if span is not None:
        source = errdefs_pb2.Source(info=ops_pb2.SourceInfo(filename=file, data=text, language="Dockerfile"))
        lines = source.ranges.add()
        lines.start.line, lines.end.line = span.first, span.last
        status.details.append(_any("Source", source))
    if vertex:
        status.details.append(_any("Vertex", errdefs_pb2.Vertex(digest=vertex)))
    return Detailed(kind, message, status.SerializeToString())


def returned(status: Status) -> WharfError:
    """The error that a client's half of the build came to, as the outcome of the whole build."""
    code = next((item for item in grpc.StatusCode if item.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    plain = from_status(code, status.message)
    return Detailed(plain.kind, status.message, status.SerializeToString())
