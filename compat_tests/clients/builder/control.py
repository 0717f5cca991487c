"""A client of BuildKit's gRPC services over `POST /grpc`, for requests that no released CLI makes."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from compat_tests.support.engines import Engine
from compat_tests.support.protos import Package
from compat_tests.support.streams import upgrade
from compat_tests.support.users import User

pb = Package("moby.buildkit.v1")
content = Package("containerd.services.content.v1")
UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relayed(first: socket.socket, second: socket.socket) -> Iterator[None]:
    """Copy between two sockets in both directions, until one of them is closed; closing one also ends the block."""
    threads = [threading.Thread(target=_pump, args=pair, daemon=True) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)


@contextlib.contextmanager
def control(engine: Engine | User) -> Iterator[Control]:
    """Connect to an engine's `moby.buildkit.v1.Control`. gRPC dials a local socket that forwards to the upgraded
    one."""
    with tempfile.TemporaryDirectory(prefix="wharf-control-") as folder, engine.api.raw() as theirs:
        theirs.settimeout(60)
        upgrade(theirs, UPGRADE)
        theirs.settimeout(None)
        with socket.socket(socket.AF_UNIX) as listening:
            path = str(Path(folder, "s"))
            listening.bind(path)
            listening.listen(1)
            with grpc.insecure_channel(f"unix:{path}") as channel:
                grpc.channel_ready_future(channel)
                ours, _ = listening.accept()
                with ours, relayed(ours, theirs):
                    yield Control(channel)
                    channel.close()


class Control:
    """The calls that tests make; errors are gRPC's."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def _many(self, name: str, request: Any, answer: Any, service: str = "moby.buildkit.v1.Control") -> list[Any]:
        call = self._channel.unary_stream(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return list(call(request, timeout=60))

    def history(self, **fields: Any) -> list[Any]:
        """Return the present records, oldest first."""
        request = pb.BuildHistoryRequest(EarlyExit=True, **fields)
        return [event.record for event in self._many("ListenBuildHistory", request, pb.BuildHistoryEvent)]

    def update(self, **change: Any) -> None:
        request = pb.UpdateBuildHistoryRequest(**change)
        self._channel.unary_unary(
            "/moby.buildkit.v1.Control/UpdateBuildHistory",
            request_serializer=type(request).SerializeToString,
            response_deserializer=pb.UpdateBuildHistoryResponse.FromString,
        )(request, timeout=60)

    def solve(self, **fields: Any) -> Any:
        """Run a build to its end."""
        call = self._channel.unary_unary(
            "/moby.buildkit.v1.Control/Solve",
            request_serializer=pb.SolveRequest.SerializeToString,
            response_deserializer=pb.SolveResponse.FromString,
        )
        return call(pb.SolveRequest(**fields), timeout=90)

    def logs(self, ref: str) -> str:
        """Return the output of a build's steps."""
        messages = self._many("Status", pb.StatusRequest(Ref=ref), pb.StatusResponse)
        return b"".join(log.msg for message in messages for log in message.logs).decode()

    def blob(self, digest: str) -> bytes:
        """Return a blob that a history record names, from containerd's content service on the same connection."""
        request = content.ReadContentRequest(digest=digest)
        messages = self._many("Read", request, content.ReadContentResponse, "containerd.services.content.v1.Content")
        return b"".join(message.data for message in messages)

    def info(self, digest: str) -> int:
        """Return the size of a blob."""
        call = self._channel.unary_unary(
            "/containerd.services.content.v1.Content/Info",
            request_serializer=content.InfoRequest.SerializeToString,
            response_deserializer=content.InfoResponse.FromString,
        )
        return int(call(content.InfoRequest(digest=digest), timeout=60).info.size)
