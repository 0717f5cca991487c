"""The admission of connections: an engine with a policy bounds how many a user may have open."""

from typing import Any, Protocol

from engine.common.errors import WharfError
from server.http.errors import error_body, status_of


class Connection(Protocol):
    """A connection of a client."""

    @property
    def transport(self) -> Any: ...

    def refuse(self, error: WharfError) -> None:
        """Answers the next request with this error, and closes the connection."""


class Admission(Protocol):
    """Decides which connections are served. Calls are synchronous, on the event loop."""

    def opened(self, connection: Connection) -> None:
        """Called for each new connection, after a TLS handshake; refuses or aborts those that are not served."""

    def closed(self, connection: Connection) -> None:
        """Called at the end of each connection. One that a handler has taken over ends when the handler returns, or
        with the relay of its bytes."""


def refusal(error: WharfError, common: bytes) -> bytes:
    """The last response of a connection that is not served. ``common``: the headers of every response."""
    body = error_body(error)
    head = f"HTTP/1.1 {status_of(error)} Error\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + common + b"Connection: close\r\n\r\n" + body
