"""HTTP/1.1 on one connection: uvicorn's protocol, extended for the Engine API.

* A route can take the connection over (``hijack.py``): its body and the bytes after it are kept separate.
* A client that disconnects cancels a handler of a waiting route, and no other.
* A half-closed client still gets its response.
* A client of HTTP/2 with prior knowledge (RFC 9113, section 3.3) is handled as one that upgrades on ``POST /grpc``:
  gRPC is all that is served over HTTP/2.
* The client's input is bounded: the head in size and time, pipelined requests by back-pressure.
"""

import asyncio
import logging
import urllib.parse
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from engine.common import timeouts
from engine.common.errors import WharfError
from server.http.admission import Admission, refusal
from server.http.application import Application
from server.http.cycle import CommonHeaders, Cycle
from server.http.framing import (
    MAX_HEAD,
    BadFraming,
    Body,
    check_head,
    check_host,
    head_end,
    plausible,
    requested_upgrade,
    split_target,
)

log = logging.getLogger(__name__)

# The deadline of a head after its first byte (or the connection): a slow sender can't keep the connection.
HEAD = "http.head"
# The maximum size of body bytes that wait for the handler.
BODY_AHEAD = 1024 * 1024
# After an early response, the rest of the body is read and discarded for this long: closing at once would make the
# client lose the response.
LINGER = "http.linger"
# The same for bytes after a rejected request, such as the rest of a head that is too long.
REJECTED = "http.rejected"

# The first part of HTTP/2's preface has the form of a head.
_HTTP2_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
_HTTP2_REST = b"SM\r\n\r\n"
_AS_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


class EngineProtocol(HttpToolsProtocol):
    """uvicorn's protocol for this API. The app gets it as ``scope["extensions"]["connection"]``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.received = bytearray()
        self.upgrade = ""
        # The client speaks HTTP/2 from its first byte: it expects no response head of HTTP/1.1.
        self.http2 = False
        # Set by the app: a disconnect cancels the running handler.
        self.disconnect_cancels = False
        self._body: Body | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._eof = False
        self._taken = False
        self._rejected = False
        self._refusal: WharfError | None = None
        self._admission: Admission | None = None
        self._complete = False
        # The number of bytes in ``received`` that contain no blank line.
        self._searched = 0

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        # The API doesn't use socket names; only the scheme depends on TLS.
        self.scheme = "https" if transport.get_extra_info("ssl_object") is not None else "http"
        self._arm(timeouts.seconds(HEAD))
        self._admission = cast(Application, self.app).admission
        if self._admission is not None:
            self._admission.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._disarm()
        if self._taken:
            return
        self.release()
        self._eof = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self._client_disconnected()
        if self.cycle is not None:
            self.cycle.message_event.set()
        self.flow.resume_writing()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client closed its side: its request is still answered, unless the handler waits for the client."""
        self._eof = True
        if self._rejected or not self._busy():
            return False
        if self.cycle.more_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            return False
        self._client_disconnected()
        self.cycle.keep_alive = False
        return True

    def _client_disconnected(self) -> None:
        if self.disconnect_cancels and self._task is not None:
            self._task.cancel()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._timed_out)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort() if self.received else self.transport.close()

    # input

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        self.received += data
        self._advance()

    def _advance(self) -> None:
        """Removes heads and bodies from the front of the received bytes, one message at a time."""
        try:
            while self.received and not self._taken and not self._rejected and not self.transport.is_closing():
                if self._body is None:
                    if self._busy():
                        # Pipelined, or early bytes of a connection that is about to be hijacked.
                        if len(self.received) > HIGH_WATER_LIMIT:
                            self.flow.pause_reading()
                        return
                    if self._refusal is not None:
                        common = cast(CommonHeaders, self.server_state.default_headers).lines()
                        self._end_with(refusal(self._refusal, common))
                        return
                    if not self._head():
                        return
                if self._body is not None and not self._take_body(self._body):
                    return
        except (httptools.HttpParserError, BadFraming) as error:
            log.debug("bad request: %s", error)
            self._reject(400, b"Bad Request")

    def _head(self) -> bool:
        """Parses a complete head and starts its handler; False if it is incomplete."""
        while self.received and self.received[0] in b"\r\n":
            del self.received[0]
        if not self.received:
            return False
        # Don't search bytes twice: a head may arrive byte by byte.
        end = head_end(self.received, max(0, self._searched - 3))
        self._searched = len(self.received) if end < 0 else 0
        if end < 0 or end > MAX_HEAD:
            if len(self.received) > MAX_HEAD:
                self._reject(431, b"Request Header Fields Too Large")
            elif not plausible(self.received):
                self._reject(400, b"Bad Request")
            elif self._timer is None:
                self._arm(timeouts.seconds(HEAD))
            return False
        head = bytes(memoryview(self.received)[:end])
        if head == _HTTP2_HEAD and self.cycle is None:
            rest = bytes(memoryview(self.received)[end : end + len(_HTTP2_REST)])
            if rest == _HTTP2_REST:
                self.http2, head = True, _AS_UPGRADE
            elif _HTTP2_REST.startswith(rest):
                return False
        self._disarm()
        del self.received[:end]
        # A new parser per message: it must not look for the message's end.
        self.parser = httptools.HttpRequestParser(self)
        self._complete = False
        check_head(head)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserCallbackError as error:
            cause = error.__cause__ or error.__context__
            raise cause if isinstance(cause, BadFraming) else BadFraming(str(cause)) from None
        if not self._complete:
            raise BadFraming("incomplete head")
        return not self._rejected and not self.transport.is_closing()

    def on_headers_complete(self) -> None:
        self._complete = True
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        raw_path, query = split_target(self.url)
        path = raw_path.decode("utf-8", "replace")
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = raw_path
        self.scope["query_string"] = query
        cast(dict[str, Any], self.scope)["extensions"] = {"connection": self}
        check_host(version, self.headers)
        self._body = Body(self.headers, version)
        self.upgrade = requested_upgrade(self.headers)
        self.disconnect_cancels = False
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            # If the requested upgrade isn't granted, the following bytes are in an unknown protocol.
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self.upgrade,
            on_response=self.on_response_complete,
        )
        if self._body.done:
            self._end_body()
        self._run_app(self.cycle, self.app)

    def _run_app(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._body is None and not self.upgrade and not self.flow.write_paused:
            instant = cast(Application, app).instant(self.scope["method"], self.scope["path"])
            if instant is not None:
                cast(Cycle, cycle).answer(instant.status_code, instant.raw_headers, bytes(instant.body))
                return
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def on_body(self, body: bytes) -> None:
        """:meth:`_take_body` removes bodies; the parser gets heads only."""

    def on_message_complete(self) -> None:
        """See :meth:`on_body`."""

    def _take_body(self, body: Body) -> bool:
        """Passes available body bytes to the handler. Returns True when the message is complete."""
        data = body.take(self.received)
        if data and not self.cycle.response_complete:
            self.cycle.body += data
            if len(self.cycle.body) > BODY_AHEAD:
                self.flow.pause_reading()
            self.cycle.message_event.set()
        if not body.done:
            return False
        self.body_ended()
        return True

    # for bodies.py

    @property
    def in_body(self) -> Body | None:
        """The framing of the body that is being received."""
        return self._body

    def early_body(self) -> bytes:
        """Body bytes that the handler has not read yet."""
        data = bytes(self.cycle.body)
        self.cycle.body = bytearray()
        return data

    def body_ended(self) -> None:
        """The message is complete."""
        self._end_body()
        if self.cycle.response_complete and cast(Cycle, self.cycle).lingers:
            self.transport.close()

    def reject_body(self) -> None:
        """The body is malformed."""
        self._reject(400, b"Bad Request")

    def _end_body(self) -> None:
        self._disarm()
        self._body = None
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _reject(self, status: int, phrase: bytes) -> None:
        """Answers a malformed request with the words of Go's server, and closes the connection."""
        line = b"%d %s" % (status, phrase)
        self._end_with(
            b"HTTP/1.1 " + line + b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + line
        )

    def _end_with(self, response: bytes) -> None:
        """Sends the last response, and closes the connection when the client does, or a short time later."""
        self._disarm()
        self.transport.write(response)
        self.received.clear()
        if self._busy():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._eof or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._rejected = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self._arm(timeouts.seconds(REJECTED))

    # the response is complete

    def on_response_complete(self) -> None:
        self._task = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._body is not None:
            self._arm(timeouts.seconds(LINGER))
        elif self._eof:
            self.transport.close()
        elif self.received:
            # Not directly: the next request must not run inside the send of this one.
            self.loop.call_soon(self._advance)

    def shutdown(self) -> None:
        """The daemon stops: idle connections close now, others after their response; waiting handlers are cancelled."""
        if not self._busy():
            self.transport.close()
            return
        self.cycle.keep_alive = False
        self._client_disconnected()

    # for the admission

    def refuse(self, error: WharfError) -> None:
        """Answers the next request with this error, and closes the connection. Not at once: clients take a response
        before their request for one of a connection that is closed."""
        self._refusal = error

    def release(self, task: object = None) -> None:
        """The connection has ended for the admission. ``task``: unused, of a task's callback."""
        if self._admission is not None:
            self._admission.closed(self)
            self._admission = None

    # for hijack.py

    def release_with_handler(self) -> None:
        """A connection that is taken over counts until its handler returns."""
        if self._admission is not None and self._task is not None:
            self._task.add_done_callback(self.release)

    def detach(self) -> bytes:
        """Ends HTTP on this connection and returns the early bytes. Reading is paused afterwards."""
        if self._body is not None:
            raise RuntimeError("the body must be read before the connection is taken over")
        self._taken = True
        self._disarm()
        self.flow.pause_reading()
        self.connections.discard(self)
        self.cycle.response_started = self.cycle.response_complete = True
        early = _HTTP2_HEAD if self.http2 else b""
        early += self.received
        self.received.clear()
        return early

    @property
    def detached(self) -> bool:
        """Whether the connection no longer uses HTTP."""
        return self._taken

    @property
    def half_closed(self) -> bool:
        """Whether the client has closed its side."""
        return self._eof
