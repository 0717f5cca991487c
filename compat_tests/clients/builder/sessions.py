"""A client of BuildKit of our own: it serves a session as buildx does, and leaves in the middle of a call of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from compat_tests.clients.builder.control import control
from compat_tests.support.engines import Engine
from compat_tests.support.streams import upgrade
from server.builder.session import calls
from server.builder.session.http2.serving import Server
from server.builder.session.pb import auth_pb2, filesync_pb2, fsutil_pb2, secrets_pb2, ssh_pb2, upload_pb2
from server.builder.session.stat import to_go

Packet = fsutil_pb2.Packet
Call = Mapping[str, str]

METHODS = (
    calls.PULL_FILES,
    calls.SEND_FILES,
    calls.GET_SECRET,
    calls.CHECK_AGENT,
    calls.FORWARD_AGENT,
    calls.CREDENTIALS,
    calls.UPLOAD,
)


class Client:
    """Serves files by folder (``dockerfile``, ``context``) and name, a secret, an agent that says nothing.

    ``leaves``: the call in which it goes away, a method's path and, of files, ``#`` and the folder.
    """

    def __init__(self, engine: Engine, files: Mapping[str, Mapping[str, bytes]], leaves: str) -> None:
        self.engine, self.files, self.leaves = engine, files, leaves
        self.asked: list[str] = []
        self._socket: socket.socket | None = None

    def _at(self, call: str) -> None:
        """Leaves if this is the call; nothing of an answer comes any more."""
        self.asked.append(call)
        if call == self.leaves and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def build(self, attrs: Mapping[str, str], exporter: str = "", **more: Any) -> Any:
        """Solves with the built-in front end; what it answered. Raises gRPC's errors."""
        return asyncio.run(self.serve(lambda session: self._solve(session, dict(attrs), exporter, more)))

    async def serve(self, work: Callable[[str], Any]) -> Any:
        """What ``work`` returns in a thread, called with the id of a session that is served meanwhile."""
        session = secrets.token_hex(12)
        sock = self.engine.api.raw()
        sock.settimeout(60)
        lines = ["POST /session HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"]
        expose = "X-Docker-Expose-Session"
        lines += [f"{expose}-Uuid: {session}", f"{expose}-Name: test", f"{expose}-Sharedkey: {session}"]
        lines += [f"{expose}-Grpc-Method: {method}" for method in METHODS]
        upgrade(sock, "\r\n".join([*lines, "", ""]).encode())
        self._socket = sock.dup()
        server = Server()
        for file, name in (
            (filesync_pb2, "FileSync"),
            (filesync_pb2, "FileSend"),
            (secrets_pb2, "Secrets"),
            (ssh_pb2, "SSH"),
            (auth_pb2, "Auth"),
            (upload_pb2, "Upload"),
        ):
            server.add(file.DESCRIPTOR.services_by_name[name], _SERVICES[name](self), dict)
        sock.setblocking(False)
        serving = asyncio.create_task(server.serve(sock, b""))
        try:
            return await asyncio.to_thread(work, session)
        finally:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            await asyncio.wait_for(serving, 60)
            await server.stop()

    def _solve(self, session: str, attrs: dict[str, str], exporter: str, more: dict[str, Any]) -> Any:
        with control(self.engine) as client:
            return client.solve(
                Ref=secrets.token_hex(12),
                Session=session,
                Frontend="dockerfile.v0",
                FrontendAttrs=attrs,
                ExporterDeprecated=exporter,
                **more,
            )


class _Service:
    def __init__(self, client: Client) -> None:
        self.client = client


class _FileSync(_Service):
    async def diff_copy(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        folder = call.get("dir-name", "")
        at = f"{calls.PULL_FILES}#{folder}"
        self.client._at(at)
        files = self.client.files.get(folder, {})
        names = sorted(files)
        mode = to_go(stat.S_IFREG | 0o644)
        for name in names:
            message = fsutil_pb2.Stat(path=name, mode=mode, size=len(files[name]), modTime=10**18)
            yield Packet(type=Packet.PACKET_STAT, stat=message)
        yield Packet(type=Packet.PACKET_STAT)
        async for packet in requests:
            if packet.type == Packet.PACKET_FIN:
                yield Packet(type=Packet.PACKET_FIN)
                return
            data = files[names[packet.ID]]
            for start in range(0, len(data), 32 << 10):
                if start > len(data) // 2:
                    self.client._at(f"{at}/{names[packet.ID]}")
                yield Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=data[start : start + (32 << 10)])
            yield Packet(type=Packet.PACKET_DATA, ID=packet.ID)


class _FileSend(_Service):
    async def diff_copy(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        async for _ in requests:
            self.client._at(calls.SEND_FILES)
        return
        yield


class _Secrets(_Service):
    async def get_secret(self, request: Any, call: Call) -> Any:
        self.client._at(calls.GET_SECRET)
        return secrets_pb2.GetSecretResponse(data=b"hush")


class _SSH(_Service):
    async def check_agent(self, request: Any, call: Call) -> Any:
        self.client._at(calls.CHECK_AGENT)
        return ssh_pb2.CheckAgentResponse()

    async def forward_agent(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        async for message in requests:
            self.client._at(calls.FORWARD_AGENT)
            yield ssh_pb2.BytesMessage(data=message.data)


class _Auth(_Service):
    async def credentials(self, request: Any, call: Call) -> Any:
        self.client._at(calls.CREDENTIALS)
        return auth_pb2.CredentialsResponse()


class _Upload(_Service):
    async def pull(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        yield upload_pb2.BytesMessage(data=os.urandom(512))
        self.client._at(calls.UPLOAD)
        yield upload_pb2.BytesMessage(data=os.urandom(512))


_SERVICES: dict[str, type[_Service]] = {
    "FileSync": _FileSync,
    "FileSend": _FileSend,
    "Secrets": _Secrets,
    "SSH": _SSH,
    "Auth": _Auth,
    "Upload": _Upload,
}
