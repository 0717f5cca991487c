"""The errors of failed calls."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from engine.api.client import Engine
from engine.api.errors import Code, from_status
from engine.api.pb import version_pb2
from engine.api.pb.rpc_status_pb2 import ErrorInfo, Status
from engine.api.tests.serving import serving
from engine.common.errors import Kind, Reason, WharfError


class _Refusing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def version(self, request: Empty, call: object) -> version_pb2.VersionResponse:
        raise self._error


def _raised(path: Path, error: Exception) -> WharfError:
    """What the client raises where the server raises ``error``."""

    async def scenario() -> WharfError:
        service = version_pb2.DESCRIPTOR.services_by_name["Version"]
        engine = Engine(f"{path}/socket")
        async with serving(path / "socket", [service], _Refusing(error)):
            try:
                with pytest.raises(WharfError) as caught:
                    await engine.version()
                return caught.value
            finally:
                await engine.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize("reason", [None, Reason.PERMISSION_DENIED])
def test_kind_message_and_reason_cross_the_connection(tmp_path: Path, reason: Reason | None) -> None:
    error = _raised(tmp_path, WharfError(Kind.CONFLICT, "50 % is ä\nno", reason=reason))
    assert (error.kind, error.message, error.reason) == (Kind.FAILED_PRECONDITION, "50 % is ä\nno", reason)


def test_an_error_without_a_kind_is_internal(tmp_path: Path) -> None:
    error = _raised(tmp_path, ValueError("no"))
    assert (error.kind, error.message) == (Kind.INTERNAL, "ValueError: no")


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
    assert from_status(Code.UNKNOWN, "no", details).reason is reason


def test_an_unknown_code_is_internal() -> None:
    assert from_status(99, "no").kind is Kind.INTERNAL
