"""Converts errors of builds to gRPC statuses with the Dockerfile lines and the step's vertex.

The details are gRPC's (``google.rpc.Status``); their type names are those that BuildKit's clients register, and their
values are JSON (BuildKit's util/grpcerrors).
"""

import base64
import errno
import os

import orjson
from google.protobuf.any_pb2 import Any

from engine.api.errors import Detailed, from_status, to_code
from engine.api.pb.rpc_status_pb2 import Status
from engine.common.errors import Kind, WharfError
from server.builder.dockerfile.errors import DockerfileError, Span
from server.builder.solver.errors import StepFailed

_TYPES = "github.com/moby/buildkit"


PASSED_ON = (Kind.CANCELLED, Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED)
"""Kinds that clients act on. All others are sent as UNKNOWN, as BuildKit's are; clients then show the sentence
alone."""


def _any(name: str, document: object) -> Any:
    return Any(type_url=f"{_TYPES}/errdefs.{name}+json", value=orjson.dumps(document))


def disk_full_error(error: OSError) -> WharfError | None:
    """Return the error for a full disk of the engine; ``None`` for other errors of the system."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return WharfError(Kind.RESOURCE_EXHAUSTED, os.strerror(error.errno).lower())


def get_span(error: WharfError) -> Span | None:
    """Return the Dockerfile lines of an error."""
    if isinstance(error, DockerfileError | StepFailed):
        return error.span
    return None


def with_details(
    error: WharfError, *, file: str = "", text: bytes = b"", vertex: str = "", span: Span | None = None
) -> WharfError:
    """Return the error with details: the lines of the file, and the vertex."""
    if isinstance(error, Detailed):
        return error
    message = error.sentence if isinstance(error, DockerfileError) else error.message
    span = get_span(error) or span
    kind = error.kind if error.kind in PASSED_ON else Kind.INTERNAL
    status = Status(code=to_code(kind), message=message)
    if span is not None:
        lines = [{"start": {"line": line}, "end": {"line": line}} for line in range(span.first, span.last + 1)]
        # Clients expect a definition, even an empty one.
        source = {"filename": file, "data": base64.b64encode(text).decode(), "language": "Dockerfile", "definition": {}}
        status.details.append(_any("Source", {"info": source, "ranges": lines}))
    if vertex:
        status.details.append(_any("Vertex", {"digest": vertex}))
    return Detailed(kind, message, status.SerializeToString())


def error_from_status(status: Status) -> WharfError:
    """Convert the status that the client's part of the build returned to an error of the whole build."""
    plain = from_status(status.code, status.message)
    return Detailed(plain.kind, status.message, status.SerializeToString())
