"""One process of a container, the first one or an exec: creates its stdio and reports its exit."""

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from engine.shim import protocol
from engine.shim.kernel import devices
from engine.shim.logs.driver import NoLog
from engine.shim.logs.opening import RunChild, open_log
from engine.shim.loop import READ, Loop
from engine.shim.protocol import Json, RequestError, text
from engine.shim.runtime.refusals import LOG_DRIVER
from engine.shim.stdio.fifo import FifoInput
from engine.shim.stdio.sink import FifoSink, FileSink
from engine.shim.stdio.streams import Streams

CREATED = "created"
RUNNING = "running"
STOPPED = "stopped"

#: Seconds from a runtime's connection to the console's socket to its message: it sends name and descriptor at once.
_CONSOLE_MESSAGE = 10.0
#: Seconds that descendants may hold the pipes of an exited process open before reading stops, as in dockerd.
DRAIN = 2.0


class Console:
    """The socket over which a runtime sends the pty's master."""

    def __init__(self, loop: Loop, path: str, on_master: Callable[[int], None]) -> None:
        self._loop = loop
        self._path = path
        self._on_master = on_master
        self._listener = protocol.listen(path, backlog=1)
        loop.add(self._listener.fileno(), READ, lambda _events: self.receive())

    def receive(self) -> None:
        """Receives the master if it has been sent."""
        if self._listener.fileno() < 0:
            return
        try:
            peer, _address = self._listener.accept()
        except BlockingIOError:
            return
        with peer:
            peer.settimeout(_CONSOLE_MESSAGE)
            _data, fds = protocol.receive_with_fds(peer)
        self.close()
        for extra in fds[1:]:
            os.close(extra)
        if fds:
            self._on_master(fds[0])

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class Process:
    """State and stdio of a process. ``stdio`` is the supervisor's parse of the request's URIs: ``terminal``, and either
    ``options`` (a ``wharf://`` URI's query) or ``stdin``, ``stdout``, ``stderr`` (FIFO paths, ``file://``)."""

    def __init__(
        self,
        loop: Loop,
        identity: str,
        stdio: Json,
        *,
        bundle: str,
        run_child: RunChild,
        on_finished: Callable[["Process"], None],
    ) -> None:
        """Opens the log and the FIFOs.

        :raises RequestError: the log or a FIFO can't be opened.
        """
        self.id = identity
        self.stdio = stdio
        self.status = CREATED
        self.pid = 0
        self.exit_status = 0
        self.cpu_ns = 0
        self.exited_at_ns = 0
        self.started = False
        self.exited = False
        self.terminal = bool(stdio.get("terminal"))
        # For an exec: the OCI process as JSON until it is started, and the oom_score_adj that its runtime inherits.
        self.spec = b""
        self.oom_score_adj: object = None
        self._loop = loop
        self._bundle = bundle
        self._on_finished = on_finished
        self._master = -1
        self._slave = -1
        self._size: tuple[int, int] | None = None
        self._console: Console | None = None
        self._fifo: FifoInput | None = None
        self._ends: list[int] = []
        self._outputs: list[tuple[int, str]] = []
        options = {key: str(value) for key, value in protocol.mapping(stdio, "options").items()}
        try:
            log = open_log(options, loop, run_child) if options else NoLog()
        except (ValueError, OSError) as error:
            sentence = f"failed to initialize logging driver: {error}"
            raise RequestError("invalid argument", sentence, reason=LOG_DRIVER) from None
        self._owner = options.get("owner", "")
        path = options.get("path", "")
        self.streams = Streams(
            loop,
            log,
            terminal=self.terminal,
            stdin_once=options.get("stdin-once") == "1",
            spill_directory=os.path.dirname(path) if path else bundle,
            on_finished=self._streams_finished,
        )
        try:
            if options:
                self.streams.input.open = options.get("stdin") == "1"
            else:
                self._open_files()
        except OSError as error:
            self.streams.close_sources()
            raise RequestError("invalid argument", f"failed to open stdio: {error}") from None

    def _open_files(self) -> None:
        for name in ("stdout", "stderr"):
            path = text(self.stdio, name)
            if path.startswith("file://"):
                self.streams.attach(FileSink(self._loop, path[7:], name))
            elif path:
                self.streams.attach(FifoSink(self._loop, path, name))
        if path := text(self.stdio, "stdin"):
            self.streams.input.open = True
            self._fifo = FifoInput(self._loop, path, self.streams)

    # The start

    def descriptors(self, null: int) -> tuple[int, int, int]:
        """The runtime's stdio. ``release`` closes the container's ends in this process."""
        if self.terminal:
            return null, null, null
        stdin = null
        if self.streams.input.open:
            stdin, ours = os.pipe2(os.O_CLOEXEC)
            self._chown(stdin)
            self.streams.input.connect(ours, terminal=False)
        outputs = []
        for stream in ("stdout", "stderr"):
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            self._chown(theirs)
            outputs.append(theirs)
            self._outputs.append((ours, stream))
        return stdin, outputs[0], outputs[1]

    def _chown(self, fd: int) -> None:
        """Changes the owner of a container's end: a process that opens ``/dev/stdout`` must own it, which is the
        container's root if ids are mapped (option ``owner``: ``uid:gid``)."""
        self._ends.append(fd)
        if self._owner:
            uid, gid = map(int, self._owner.split(":"))
            os.fchown(fd, uid, gid)

    def connect(self) -> None:
        """The process exists: starts to read its output. Output of a runtime that failed is discarded."""
        for fd, stream in self._outputs:
            self.streams.add_source(fd, stream)
        self._outputs.clear()

    def release(self) -> None:
        """The runtime has its own copies of the descriptors: closes ours."""
        for fd in self._ends:
            os.close(fd)
        self._ends.clear()

    def console(self, name: str) -> str | None:
        """The path for ``--console-socket``, for a terminal."""
        if not self.terminal:
            return None
        self._console = Console(self._loop, os.path.join(self._bundle, name), self._take_master)
        return name

    def runtime_exited(self) -> None:
        """The runtime has exited; it sent the console's master before."""
        self.release()
        if self._console is not None:
            self._console.receive()
            self._console.close()
            self._console = None

    def _take_master(self, fd: int) -> None:
        self._master = fd
        # While this process has the slave open, a process that closes its terminal ends neither output nor input: it or
        # another process may open the terminal again (systemd does so with its console).
        with contextlib.suppress(OSError):
            self._slave = devices.open_terminal(fd)
        if self._size is not None:
            self.resize(*self._size)
        self.streams.input.connect(os.dup(fd), terminal=True)
        self.streams.add_source(os.dup(fd), "stdout")

    # Control

    def resize(self, width: int, height: int) -> None:
        """Sets rows and columns of the terminal; stores them if there is no terminal yet."""
        self._size = (width, height)
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close_input(self) -> None:
        if self._fifo is not None:
            self._fifo.close_writer()
        else:
            self.streams.input.close()

    # The exit

    def ended(self, status: int, now_ns: int) -> None:
        """The process was reaped. Its output is read to the end before the exit is reported."""
        self.exited = True
        self.exit_status = status
        self.exited_at_ns = now_ns
        self.cpu_ns = self._loop.child_cpu_ns
        self._close_slave()
        self.streams.drain()
        self.streams.process_ended()
        if self.streams.finished:
            self._streams_finished()
        elif self.streams.reading and not self.terminal:
            self._loop.call_later(DRAIN, self.streams.close_sources)
        else:
            # A terminal ends with its process. Descendants of an exec that have it open get a hangup from the kernel
            # when the master is closed, as with containerd's shim.
            self.streams.close_sources()

    def _close_slave(self) -> None:
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def _streams_finished(self) -> None:
        self._close_slave()
        if self._fifo is not None:
            self._fifo.close()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        if self.exited and self.status != STOPPED:
            self._on_finished(self)

    def abandon(self) -> None:
        """The process never started: closes descriptors and releases its clients."""
        self.runtime_exited()
        for fd, _stream in self._outputs:
            os.close(fd)
        self._outputs.clear()
        self.streams.abandon()

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "pid": self.pid,
            "status": self.status,
            "exit_status": self.exit_status,
            "exited_at_ns": self.exited_at_ns,
            "stdio": self.stdio,
        }
