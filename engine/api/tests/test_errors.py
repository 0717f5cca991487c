"""The errors of failed calls."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from grpc.aio import AioRpcError, Metadata

from engine.api.client import Engine
from engine.api.errors import DETAILS, from_rpc_error
from engine.api.pb import version_pb2
from engine.api.pb.rpc_status_pb2 import ErrorInfo, Status
from engine.api.serving import handler
from engine.common.errors import Kind, Reason, WharfError


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Stream removed (recvmsg:Connection reset by peer (104))", Kind.UNAVAILABLE),
        ("something of the server's own", Kind.INTERNAL),
    ],
)
def test_a_reset_connection_is_unavailable(message: str, kind: Kind) -> None:
    error = AioRpcError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata(), message, "")
    assert from_rpc_error(error).kind is kind


class _Refusing:
    def __init__(self, error: WharfError) -> None:
        self._error = error

    async def version(self, request: Empty, call: object) -> version_pb2.VersionResponse:
        raise self._error


@pytest.mark.parametrize("reason", [None, Reason.PERMISSION_DENIED])
def test_kind_message_and_reason_cross_the_connection(tmp_path: Path, reason: Reason | None) -> None:
    async def scenario() -> WharfError:
        server = grpc.aio.server()
        servicer = _Refusing(WharfError(Kind.CONFLICT, "no", reason=reason))
        service = version_pb2.DESCRIPTOR.services_by_name["Version"]
        server.add_generic_rpc_handlers((handler(service, servicer, lambda context: context),))
        server.add_insecure_port(f"unix://{tmp_path}/socket")
        await server.start()
        engine = Engine(f"{tmp_path}/socket")
        try:
            with pytest.raises(WharfError) as caught:
                await engine.version()
            return caught.value
        finally:
            await engine.close()
            await server.stop(None)

    error = asyncio.run(scenario())
    assert (error.kind, error.message, error.reason) == (Kind.FAILED_PRECONDITION, "no", reason)


def _details(reason: str, domain: str) -> bytes:
    detail = Any()
    detail.Pack(ErrorInfo(reason=reason, domain=domain))
    return Status(details=[Any(type_url="x/other", value=b"\xff"), detail]).SerializeToString()


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        (_details("NO_SUCH_FILE", "wharf"), Reason.NO_SUCH_FILE),
        (_details("NO_SUCH_FILE", "example.com"), None),
        (_details("OF_A_NEWER_RELEASE", "wharf"), None),
        (b"\xff", None),
    ],
)
def test_only_our_own_reasons_count(details: bytes, reason: Reason | None) -> None:
    error = AioRpcError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata((DETAILS, details)), "no", "")
    assert from_rpc_error(error).reason is reason
