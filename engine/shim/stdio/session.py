"""One attached client: its output (framed or raw), its input to the process, and the end of its session."""

import socket
from collections.abc import Callable
from typing import NamedTuple

from engine.shim.loop import ERROR, HANGUP, READ, WRITE, Loop
from engine.shim.stdio.keys import Detach
from engine.shim.stdio.sink import Sink, shut

EOF = "eof"
DETACHED = "detached"
GONE = "gone"
UNSTARTED = "unstarted"

# Seconds for a client to close its end after our last byte. Closing earlier would answer its late input with a TCP
# reset, and a reset makes the client's kernel discard output that the client hasn't read yet.
LINGER = 10.0
_READ = 64 << 10
_STREAM_NUMBER = {"stdout": 1, "stderr": 2}


class SessionOptions(NamedTuple):
    """The client's request; see ``engine.api.stdio.Attach``. ``hold_output``: nothing is written before ``release``."""

    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool
    detach_keys: bytes
    early: bytes
    head: bytes
    hold_output: bool = False


class Session(Sink):
    """Owns the client's socket. ``on_end`` gets ``eof``, ``detached``, ``gone`` or ``unstarted``, once."""

    may_spill = True
    alive = 0

    def __init__(
        self, loop: Loop, client: socket.socket, options: SessionOptions, on_end: Callable[[str], None]
    ) -> None:
        client.settimeout(0)
        super().__init__(loop, client.fileno())
        self._client = client
        self._options = options
        self._on_end = on_end
        self._detach = Detach(options.detach_keys)
        self._early = options.early
        self._reading = True
        self._input_ended = False
        self._hung_up = False
        self._held = options.hold_output
        loop.add(self.fd, READ, self._ready)
        Session.alive += 1

    def open(self) -> None:
        """Called after joining the streams: writes the head first, and passes the early bytes to the input first."""
        if self._options.head:
            self.push(self._options.head)
        self.input_ready()

    # Output

    def accepts(self, stream: str) -> bool:
        return self._options.stdout if stream == "stdout" else self._options.stderr

    def encode(self, stream: str, data: bytes) -> tuple[bytes, ...]:
        if self._options.framed:
            # Docker's frame: stream, three zero bytes, length.
            return (_STREAM_NUMBER[stream] << 56 | len(data)).to_bytes(8, "big"), data
        return (data,)

    def write_parts(self, parts: list[bytes | memoryview]) -> int:
        return self._client.sendmsg(parts, (), socket.MSG_NOSIGNAL)

    def release(self) -> None:
        """Writes the output that was kept back."""
        self._held = False
        self.flush()

    def flush(self) -> None:
        if not self._held:
            super().flush()

    def finish(self) -> None:
        if self._held:
            self._finishing = True  # finish after ``release``
        else:
            super().finish()

    def flushed(self) -> None:
        self.end(EOF)

    def consumer_closed(self) -> None:
        self.end(GONE)

    def update_watch(self) -> None:
        if not self._hung_up:
            self.loop.modify(self.fd, (READ if self._reading else 0) | (WRITE if self._want_write else 0))

    # Input

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self.flush()
        if self.closed:
            return
        if events & (HANGUP | ERROR):
            # Both directions are shut down. The kernel would report it forever, so stop watching; input that arrived
            # before is still read.
            self._hung_up = True
            self.loop.remove(self.fd)
            self._read_all()
        elif events & READ:
            self._read()

    def _read_all(self) -> None:
        while not self.closed and not self._input_ended and self._read():
            pass
        if not self.closed and self._input_ended:
            self.end(GONE)

    def _set_reading(self, *, on: bool) -> None:
        if on != self._reading:
            self._reading = on
            self.update_watch()

    def input_ready(self) -> None:
        """The process accepts input again."""
        if self.closed:
            return
        if self._early and not self._blocked():
            early, self._early = self._early, b""
            self._pass_on(early)
        if self.closed or self._blocked() or self._input_ended:
            return
        if self._hung_up:
            self._read_all()
        else:
            self._set_reading(on=True)

    def _blocked(self) -> bool:
        return self._options.stdin and self.streams is not None and self.streams.input.blocked

    def _read(self) -> bool:
        if self._blocked() or self._early:
            self._set_reading(on=False)
            return False
        try:
            data = self._client.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            self.end(GONE)
            return False
        if data:
            self._pass_on(data)
            return True
        self._input_ended = True
        self._set_reading(on=False)
        self._input_eof()
        return False

    def _pass_on(self, data: bytes) -> None:
        if not self._options.stdin or self.streams is None:
            return
        data, detached = self._detach.filter(data)
        if data:
            self.streams.input.write(data)
        if detached:
            self.end(DETACHED)

    def _input_eof(self) -> None:
        streams = self.streams
        if not self._options.stdin or streams is None:
            # Clients without input close their side at once; output continues.
            return
        if streams.stdin_once and not streams.terminal:
            streams.input.close()
        else:
            # As in dockerd: the end of a client's input ends its session; the container's input stays open for the next
            # client.
            self.end(GONE)

    def _end_input(self) -> None:
        # The client has closed, maybe right after its last input: the container still gets that input, then its end.
        streams = self.streams
        if streams is None or not self._options.stdin or not streams.stdin_once or streams.terminal:
            return
        try:
            while not self._input_ended and (data := self._client.recv(_READ)):
                streams.input.write(self._detach.filter(data)[0])
        except OSError:
            pass
        streams.input.close()

    # The end

    def end(self, reason: str) -> None:
        """Ends the session once; later calls do nothing."""
        if self.closed:
            return
        if reason == GONE:
            self._end_input()
        lingering = reason in {EOF, DETACHED} and not self._hung_up
        self.drop()
        self.loop.remove(self.fd)
        if reason == UNSTARTED:
            self._client.close()
        elif lingering:
            self._linger()
        else:
            shut(self._client, socket.SHUT_RDWR)
            self._client.close()
        Session.alive -= 1
        self._on_end(reason)

    def _linger(self) -> None:
        shut(self._client, socket.SHUT_WR)
        Linger(self.loop, self._client)

    def return_socket(self) -> None:
        """The process never started: returns the client's socket unchanged."""
        self.end(UNSTARTED)


class Linger:
    """Reads and discards until the client has closed its end, for at most ``LINGER`` seconds."""

    alive = 0

    def __init__(self, loop: Loop, client: socket.socket) -> None:
        self._loop = loop
        self._client = client
        Linger.alive += 1
        self._timer = loop.call_later(LINGER, self._close)
        loop.add(client.fileno(), READ, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            while data := self._client.recv(_READ):
                del data
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._loop.remove(self._client.fileno())
        shut(self._client, socket.SHUT_RDWR)
        self._client.close()
        Linger.alive -= 1
