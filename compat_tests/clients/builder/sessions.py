"""A BuildKit client of the tests: it serves a session as buildx does, and disconnects during a chosen call."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc

from compat_tests.clients.builder.control import control, relayed
from compat_tests.support.engines import Engine
from compat_tests.support.protos import Package
from compat_tests.support.streams import upgrade

T = TypeVar("T")

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
PULL_FILES = "/moby.filesync.v1.FileSync/DiffCopy"
SEND_FILES = "/moby.filesync.v1.FileSend/DiffCopy"
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
UPLOAD = "/moby.upload.v1.Upload/Pull"

filesync, fsutil = Package("moby.filesync.v1"), Package("fsutil.types")
hidden, ssh, uploads = Package("moby.buildkit.secrets.v1"), Package("moby.sshforward.v1"), Package("moby.upload.v1")
_PIECE = 32 << 10


class Client:
    """Serves files by directory (``dockerfile``, ``context``) and name, a secret, and a silent SSH agent.

    ``leaves``: the call during which it disconnects: a method's path and, for files, ``#`` and the directory.
    """

    def __init__(self, engine: Engine, files: Mapping[str, Mapping[str, bytes]], leaves: str) -> None:
        self.engine, self.files, self.leaves = engine, files, leaves
        self.calls: list[str] = []
        self._socket: socket.socket | None = None

    def _at(self, call: str) -> None:
        """Disconnect if this is the chosen call, without an answer."""
        self.calls.append(call)
        if call == self.leaves and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def build(self, attrs: Mapping[str, str], exporter: str = "", **more: Any) -> Any:
        """Solve with the built-in front end; return the response. Raises gRPC's errors."""
        return self.serve(lambda session: self._solve(session, dict(attrs), exporter, more))

    def serve(self, work: Callable[[str], T]) -> T:
        """Return what ``work`` returns, called with the id of a session that is served meanwhile.

        gRPC's server listens on a local socket; requests of the engine on the upgraded connection are forwarded to it.
        """
        session = secrets.token_hex(12)
        methods = self._methods()
        lines = ["POST /session HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"]
        expose = "X-Docker-Expose-Session"
        lines += [f"{expose}-Uuid: {session}", f"{expose}-Name: test", f"{expose}-Sharedkey: {session}"]
        lines += [f"{expose}-Grpc-Method: {method}" for method in methods]
        with (
            tempfile.TemporaryDirectory(prefix="wharf-session-") as folder,
            ThreadPoolExecutor() as threads,
            self.engine.api.raw() as theirs,
            socket.socket(socket.AF_UNIX) as ours,
        ):
            server = grpc.server(threads)
            for method, handler in methods.items():
                service, _, name = method[1:].partition("/")
                handlers = grpc.method_handlers_generic_handler(service, {name: handler})
                server.add_generic_rpc_handlers((handlers,))
            path = str(Path(folder, "s"))
            server.add_insecure_port(f"unix:{path}")
            server.start()
            theirs.settimeout(60)
            upgrade(theirs, "\r\n".join([*lines, "", ""]).encode())
            theirs.settimeout(None)
            ours.connect(path)
            self._socket = theirs
            try:
                with relayed(ours, theirs):
                    try:
                        return work(session)
                    finally:
                        with contextlib.suppress(OSError):
                            theirs.shutdown(socket.SHUT_RDWR)
            finally:
                server.stop(None).wait(60)

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

    # The methods of a session.

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        table: dict[str, tuple[Any, Any, Any, Any]] = {
            PULL_FILES: (many, self._pull_files, fsutil.Packet, fsutil.Packet),
            SEND_FILES: (many, self._send_files, filesync.BytesMessage, filesync.BytesMessage),
            GET_SECRET: (one, self._get_secret, hidden.GetSecretRequest, hidden.GetSecretResponse),
            CHECK_AGENT: (one, self._check_agent, ssh.CheckAgentRequest, ssh.CheckAgentResponse),
            FORWARD_AGENT: (many, self._forward_agent, ssh.BytesMessage, ssh.BytesMessage),
            CREDENTIALS: (one, self._credentials, filesync.CredentialsRequest, filesync.CredentialsResponse),
            UPLOAD: (many, self._upload, uploads.BytesMessage, uploads.BytesMessage),
        }
        return {
            path: kind(function, request_deserializer=request.FromString, response_serializer=answer.SerializeToString)
            for path, (kind, function, request, answer) in table.items()
        }

    def _pull_files(self, requests: Iterator[Any], call: grpc.ServicerContext) -> Iterator[Any]:
        packet = fsutil.Packet
        folder = str(dict(call.invocation_metadata()).get("dir-name", ""))
        at = f"{PULL_FILES}#{folder}"
        self._at(at)
        files = self.files.get(folder, {})
        names = sorted(files)
        for name in names:
            status = fsutil.Stat(path=name, mode=0o644, size=len(files[name]), modTime=10**18)
            yield packet(type=packet.PACKET_STAT, stat=status)
        yield packet(type=packet.PACKET_STAT)
        for request in requests:
            if request.type == packet.PACKET_FIN:
                yield packet(type=packet.PACKET_FIN)
                return
            data = files[names[request.ID]]
            for start in range(0, len(data), _PIECE):
                if start > len(data) // 2:
                    self._at(f"{at}/{names[request.ID]}")
                yield packet(type=packet.PACKET_DATA, ID=request.ID, data=data[start : start + _PIECE])
            yield packet(type=packet.PACKET_DATA, ID=request.ID)

    def _send_files(self, requests: Iterator[Any], call: grpc.ServicerContext) -> Iterator[Any]:
        for _ in requests:
            self._at(SEND_FILES)
        return
        yield

    def _get_secret(self, request: Any, call: grpc.ServicerContext) -> Any:
        self._at(GET_SECRET)
        return hidden.GetSecretResponse(data=b"hush")

    def _check_agent(self, request: Any, call: grpc.ServicerContext) -> Any:
        self._at(CHECK_AGENT)
        return ssh.CheckAgentResponse()

    def _forward_agent(self, requests: Iterator[Any], call: grpc.ServicerContext) -> Iterator[Any]:
        for message in requests:
            self._at(FORWARD_AGENT)
            yield ssh.BytesMessage(data=message.data)

    def _credentials(self, request: Any, call: grpc.ServicerContext) -> Any:
        self._at(CREDENTIALS)
        return filesync.CredentialsResponse()

    def _upload(self, requests: Iterator[Any], call: grpc.ServicerContext) -> Iterator[Any]:
        yield uploads.BytesMessage(data=os.urandom(512))
        self._at(UPLOAD)
        yield uploads.BytesMessage(data=os.urandom(512))
