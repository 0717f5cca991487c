"""The I/O host: stdio for a stock containerd, whose shim knows FIFOs only. One process per container; outlives the
daemon.

It creates the FIFOs for the task (or exec), reads them, writes the log, and serves attach on the same kind of
``stdio.sock`` as our own shim. Operations on its control socket (``io.sock``):

* ``open`` ``{"exec_id", "socket", "terminal", "options"}`` → ``{"stdin", "stdout", "stderr"}`` (paths; empty
  where there is none) for Tasks.Create or Tasks.Exec.
* ``started``: the process runs → ``{"input_closed"}``. ``abandon``: it will never run; clients get their sockets
  back.
* ``exited``: the process has exited; its output is read to the end. ``close``: forget an exited process; the host
  exits with the last one. When the container's own process exits, its execs have exited too, even without a report.
* ``discard``: the container does not run, and the state here is unknown to the daemon.
* ``state`` → the ids that it serves, and those whose input has ended.

The end of stdin is reported to the daemon as ``{"event": "stdin-closed", "exec_id"}``: containerd's shim holds the FIFO
open too, only Tasks.CloseIO ends the container's input, and only once the process runs.

While no daemon is connected to report a process's exit, the end of its output counts as its exit; if the directory was
removed, no daemon will ever connect.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable

from engine.shim.container.process import DRAIN
from engine.shim.logs.driver import Pending
from engine.shim.logs.opening import open_log
from engine.shim.loop import Loop
from engine.shim.protocol import Json, ProtocolError, RequestError, mapping, text
from engine.shim.runtime.runner import run_child
from engine.shim.server import Peer, Server
from engine.shim.stdio.attach import StdioServer
from engine.shim.stdio.session import Linger, Session
from engine.shim.stdio.streams import Streams

SOCKET = "io.sock"


class Pipes:
    """The FIFOs of one process and their streams."""

    def __init__(
        self,
        loop: Loop,
        directory: str,
        message: Json,
        on_finished: Callable[[], None],
        on_input_closed: Callable[[], None],
    ) -> None:
        """Creates the FIFOs and opens the log.

        :raises OSError: the FIFOs or the log can't be created.
        :raises ValueError: an invalid log option.
        """
        options = {key: str(value) for key, value in mapping(message, "options").items()}
        terminal = bool(message.get("terminal"))
        path = options.get("path", "")
        self.directory = directory
        self.paths = {"stdin": "", "stdout": "", "stderr": ""}
        self.started = False
        #: The container has exited: maybe no daemon reports this process's exit.
        self.container_exited = False
        self._on_input_closed = on_input_closed
        self._loop = loop
        self._keepers: list[int] = []
        self.streams = Streams(
            loop,
            open_log(options, loop, run_child),
            terminal=terminal,
            stdin_once=options.get("stdin-once") == "1",
            spill_directory=os.path.dirname(path) if path else directory,
            on_finished=on_finished,
        )
        try:
            for name in ("stdin", "stdout", "stderr"):
                used = options.get("stdin") == "1" if name == "stdin" else not (terminal and name == "stderr")
                if used:
                    self._make(os.path.join(directory, name), name)
        except OSError:
            self.remove()
            raise

    def _make(self, path: str, name: str) -> None:
        os.mkfifo(path, 0o600)
        self.paths[name] = path
        # Open for both directions first: then neither containerd's shim nor this process blocks in open(2).
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if name == "stdin":
            # Bytes written before containerd opens the FIFO (for an exec: at its start) must survive our close.
            self._keepers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            self.streams.input.open = True
            self.streams.input.on_shut = self._input_closed
            self.streams.input.connect(fd, terminal=False)
        else:
            self._keepers.append(fd)
            self.streams.add_source(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), name)

    def _input_closed(self) -> None:
        if self.started:
            self._on_input_closed()

    @property
    def input_closed(self) -> bool:
        """Whether the process's input has ended, which Tasks.CloseIO must report to containerd."""
        return bool(self.paths["stdin"]) and not self.streams.input.open

    def release(self) -> None:
        """The shim has opened its ends: from now on, end of file is detected."""
        for fd in self._keepers:
            os.close(fd)
        self._keepers.clear()

    def exited(self) -> None:
        self.release()
        self.streams.drain()
        self.streams.process_ended()
        if not self.streams.finished:
            self._loop.call_later(DRAIN, self.streams.close_sources)

    def remove(self) -> None:
        self.release()
        self.streams.close_sources()
        shutil.rmtree(self.directory, ignore_errors=True)


class IoHost:
    """``directory`` has the FIFOs and ``io.sock``; ``control`` is the launcher's end of a socket pair."""

    def __init__(self, directory: str, control: socket.socket) -> None:
        self.loop = Loop(self._failed)
        self._directory = directory
        self._processes: dict[str, Pipes] = {}
        self._stdio: StdioServer | None = None
        self._counter = 0
        self.loop.catch_children()
        self._server = Server(
            self.loop, os.path.join(directory, SOCKET), self._request, on_last_gone=self._last_peer_gone
        )
        self._server.add(control)

    def _failed(self, error: BaseException) -> None:
        import traceback  # imported here only, to keep it out of every shim

        with open(os.path.join(self._directory, "iohost.log"), "a") as file:
            traceback.print_exception(error, file=file)

    def _last_peer_gone(self) -> None:
        """The daemon has disconnected."""
        forgotten = not os.path.exists(self._directory)
        for identity, pipes in tuple(self._processes.items()):
            if pipes.streams.finished:
                pipes.streams.process_ended()
                if forgotten:
                    self._forget(identity, pipes)
        if not self._processes:
            self._exit()

    def _finished(self) -> None:
        """All output of a process was read."""
        if not self._server.peers:
            self._last_peer_gone()
        for identity, pipes in tuple(self._processes.items()):
            if pipes.container_exited and pipes.streams.finished:
                self._forget(identity, pipes)

    def _container_exited(self) -> None:
        """The container has exited, and so have its execs. The daemon abandons an exec that is about to start."""
        for pipes in tuple(self._processes.values()):
            pipes.container_exited = True
            if pipes.started:
                pipes.exited()
        self._finished()

    def _request(self, peer: Peer, message: Json, _tail: bytes, _fds: list[int]) -> None:
        try:
            self._operate(peer, message, text(message, "op"))
        except ProtocolError as error:
            raise RequestError("invalid argument", str(error)) from None

    def _operate(self, peer: Peer, message: Json, operation: str) -> None:
        if operation == "open":
            peer.reply(message, **self._open(message))
            return
        if operation == "state":
            closed = sorted(identity for identity, pipes in self._processes.items() if pipes.input_closed)
            peer.reply(message, processes=sorted(self._processes), input_closed=closed, pid=os.getpid())
            return
        if operation == "discard":
            for name, each in tuple(self._processes.items()):
                # Output that was read is still delivered to its clients.
                (each.exited if each.started else each.streams.abandon)()
                self._forget(name, each)
            self._exit()
            peer.reply(message)
            return
        identity = text(message, "exec_id")
        pipes = self._processes.get(identity)
        if pipes is None:
            raise RequestError("not found", f"process {identity!r} not found")
        if operation == "started":
            pipes.started = True
            pipes.release()
            peer.reply(message, input_closed=pipes.input_closed)
            if pipes.container_exited:
                self._container_exited()
            return
        if operation == "exited":
            pipes.exited()
        elif operation == "abandon":
            pipes.streams.abandon()
            self._forget(identity, pipes)
        elif operation == "close":
            self._forget(identity, pipes)
            if not identity:
                self._container_exited()
        else:
            raise RequestError("not implemented", f"I/O host: no operation {operation!r}")
        peer.reply(message)

    def _open(self, message: Json) -> Json:
        identity = text(message, "exec_id")
        if identity in self._processes:
            raise RequestError("already exists", f"process {identity!r} already exists")
        if self._stdio is None and (path := text(message, "socket")):
            self._stdio = StdioServer(self.loop, path, self._streams)
        self._counter += 1
        directory = os.path.join(self._directory, f"{time.time_ns():x}-{self._counter}")
        try:
            os.mkdir(directory, 0o700)
            pipes = Pipes(
                self.loop,
                directory,
                message,
                self._finished,
                lambda: self._server.broadcast({"event": "stdin-closed", "exec_id": identity}),
            )
        except (OSError, ValueError) as error:
            shutil.rmtree(directory, ignore_errors=True)
            if not self._processes:
                self._exit()
            what = "initialize logging driver" if isinstance(error, ValueError) else "open stdio"
            raise RequestError("invalid argument", f"failed to {what}: {error}") from None
        self._processes[identity] = pipes
        self.loop.after_round = None
        return dict(pipes.paths)

    def _streams(self, identity: str) -> Streams:
        pipes = self._processes.get(identity)
        if pipes is None:
            raise RequestError("not found", f"process {identity!r} not found")
        return pipes.streams

    def _forget(self, identity: str, pipes: Pipes) -> None:
        pipes.remove()
        if self._processes.pop(identity, None) is not None and not self._processes:
            self._exit()

    def _exit(self) -> None:
        """Exits once pending work is done; until then, a new process may be opened."""
        self.loop.after_round = self._exit_if_idle

    def _exit_if_idle(self) -> None:
        if not Session.alive and not Linger.alive and not Pending.count:
            self._server.stop_listening()
            if self._stdio is not None:
                self._stdio.stop_listening()
            self.loop.stop()
