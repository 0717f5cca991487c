"""``stdio.sock``: the daemon passes clients' sockets through it and is notified of the end of their sessions."""

import os
import socket
from collections.abc import Callable

from engine.shim.loop import Loop
from engine.shim.protocol import Json, ProtocolError, RequestError, integer, mapping, text
from engine.shim.server import Peer, Server
from engine.shim.stdio.session import Session, SessionOptions
from engine.shim.stdio.streams import Streams

# The maximum size of the bytes that the daemon has already read from the client.
_MAX_EARLY = 8 << 20


class AttachRequest:
    """A request to serve a client, whose socket is the only descriptor of ``message``; ``tail`` has the bytes to write
    first and the input to read first. ``peer`` is notified of the session's end, and closed then if ``last``."""

    def __init__(
        self, loop: Loop, peer: Peer, message: Json, tail: bytes, fds: list[int], *, last: bool = True
    ) -> None:
        """Takes the client's socket.

        :raises RequestError: the request is invalid, or the socket can't be used.
        """
        if len(fds) != 1:
            raise RequestError("invalid argument", "attach: exactly one client socket belongs to a request")
        head = integer(message, "head")
        if not 0 <= head <= len(tail) or len(tail) - head > _MAX_EARLY:
            raise RequestError("invalid argument", "attach: head and early bytes don't fit")
        self.options = SessionOptions(
            stdin=bool(message.get("stdin")),
            stdout=bool(message.get("stdout")),
            stderr=bool(message.get("stderr")),
            framed=bool(message.get("framed")),
            detach_keys=bytes.fromhex(text(message, "detach_keys")),
            early=tail[head:],
            head=tail[:head],
            hold_output=bool(message.get("held")),
        )
        client = socket.socket(fileno=fds.pop())

        def ended(reason: str) -> None:
            peer.send({"ended": reason})
            if last:
                peer.close()

        try:
            self.session = Session(loop, client, self.options, ended)
        except OSError as error:
            client.close()
            raise RequestError("invalid argument", f"attach: {os.strerror(error.errno or 0)}") from None

    def join(self, streams: Streams) -> None:
        """Adds the session to the streams: it gets all output from now on."""
        streams.attach(self.session)


Run = Callable[[Peer, Json, bytes, AttachRequest | None], None]


class StdioServer:
    """Serves the streams of ``find(exec_id)``, which raises RequestError for an unknown process. ``run`` runs another
    process: it gets the daemon's connection, its request, the process's specification, and its client. ``usage``
    returns what the container has used, if it has exited (``cgroups.usage``)."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        find: Callable[[str], Streams],
        run: Run | None = None,
        usage: Callable[[], Json] = dict,
    ) -> None:
        self._loop = loop
        self._find = find
        self._run = run
        self._usage = usage
        # Sessions whose output is kept back until the daemon has sent the log to the client, by the daemon's
        # connection.
        self._held: dict[Peer, Session] = {}
        self._server = Server(loop, path, self._request, on_gone=self._release)

    def stop_listening(self) -> None:
        self._server.stop_listening()

    def _request(self, peer: Peer, message: Json, tail: bytes, fds: list[int]) -> None:
        try:
            operation = text(message, "op")
            if operation == "attach":
                self._attach(peer, message, tail, fds)
            elif operation == "run":
                self._start(peer, message, tail, fds)
            elif operation == "go":
                self._release(peer)
            elif operation == "drained":
                self._drained(peer, message)
            elif operation == "note":
                self._find("").note(text(message, "line"))
                self._reply(peer, {"noted": True})
            elif operation == "clients":
                self._reply(peer, {"clients": len(self._find("").sessions)})
            elif operation == "usage":
                self._reply(peer, {"usage": self._usage()})
            else:
                raise RequestError("not implemented", f"stdio: no operation {operation!r}")
        except ProtocolError as error:
            raise RequestError("invalid argument", str(error)) from None

    def _reply(self, peer: Peer, message: Json) -> None:
        peer.send(message)
        peer.close()

    def _attach(self, peer: Peer, message: Json, tail: bytes, fds: list[int]) -> None:
        streams = self._find(text(message, "exec_id"))
        request = AttachRequest(self._loop, peer, message, tail, fds)
        if request.options.hold_output:
            self._held[peer] = request.session
        # In one step of the loop: the log up to now and the session's output from now on are complete together.
        if request.options.hold_output:
            # Pass the log file's descriptor along: rotation may rename the file.
            peer.send({"handed": True, "log": streams.log.mark()}, fd=streams.log.open_reader())
        else:
            peer.send({"handed": True})
        request.join(streams)

    def _start(self, peer: Peer, message: Json, tail: bytes, fds: list[int]) -> None:
        if self._run is None:
            raise RequestError("not implemented", "stdio: processes are not run here")
        size = integer(message, "spec")
        if not 0 <= size <= len(tail):
            raise RequestError("invalid argument", "run: the specification doesn't fit")
        client = mapping(message, "client")
        request = AttachRequest(self._loop, peer, client, tail[size:], fds, last=False) if client else None
        self._run(peer, message, tail[:size], request)

    def _release(self, peer: Peer) -> None:
        """The daemon has sent the earlier output to the client, or has closed the connection."""
        session = self._held.pop(peer, None)
        if session is not None:
            session.release()

    def _drained(self, peer: Peer, message: Json) -> None:
        streams = self._find(text(message, "exec_id"))

        def drained() -> None:
            peer.send({"drained": True})
            peer.close()

        streams.when_drained(drained)
