"""The shim of one container: runs the OCI runtime, owns stdio, reaps processes, answers the supervisor.

It is forked from the zygote, is the subreaper of its container and outlives supervisor and daemon. A restarted
supervisor gets what it missed in the answer to ``state`` and, if the shim itself was killed, from ``state.json`` in the
bundle.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable

from engine.shim.container import record
from engine.shim.container.controls import Controls
from engine.shim.container.execs import Execs
from engine.shim.container.launcher import launch
from engine.shim.container.process import CREATED, RUNNING, STOPPED, Process
from engine.shim.container.removal import Removal
from engine.shim.kernel import cgroups, devices
from engine.shim.kernel.oom import OomWatch
from engine.shim.logs.driver import Pending
from engine.shim.loop import Loop
from engine.shim.protocol import Json, ProtocolError, RequestError, mapping, text
from engine.shim.runtime.oci import Runtime
from engine.shim.runtime.runner import Runner, run_child
from engine.shim.server import Peer, Server
from engine.shim.stdio.attach import AttachRequest, StdioServer
from engine.shim.stdio.session import Linger, Session
from engine.shim.stdio.streams import Streams

STATE = "state.json"
SOCKET = "shim.sock"


class Shim:
    """``bundle`` is the working directory, which the supervisor created; ``control`` is its end of a socket pair."""

    def __init__(self, bundle: str, control: socket.socket) -> None:
        self.loop = Loop(self._failed)
        self._bundle = bundle
        self._id = ""
        self._runner = Runner(self.loop, Runtime("", "", ""))
        self._init: Process | None = None
        self._execs = Execs(
            self.loop, self._runner, self._process, on_settled=self._exec_settled, on_event=self._publish
        )
        self._oom: OomWatch | None = None
        self._starting = False
        self._removal = Removal(self.loop, self._runner, bundle)
        self._pending_exit: Process | None = None
        self._stdio: StdioServer | None = None
        self._creating = False
        self._restored = False  # restored: it runs already, but its start has not been requested
        self._oom_seen = False
        self._usage: Json = {}
        self._when_settled: list[Callable[[], None]] = []
        self._operations: dict[str, Callable[[Peer, Json], None]] = {
            "create": self._create,
            "start": self._start,
            "exec": self._exec,
            "state": self._state,
            "delete": self._delete,
        }
        self._controls = Controls(self._runner, self._find, self._execs.all)
        self._operations.update(self._controls.operations)
        self.loop.catch_children()
        self._server = Server(self.loop, os.path.join(bundle, SOCKET), self._request, on_last_gone=self._last_peer_gone)
        self._server.add(control)

    def _last_peer_gone(self) -> None:
        # The supervisor died before it sent ``create``: no supervisor will know this shim.
        if self._init is None:
            self._exit()

    def _failed(self, error: BaseException) -> None:
        # A shim's stderr is not read; write the traceback into the bundle.
        import traceback  # imported here only, to keep it out of every shim

        with contextlib.suppress(OSError), open(os.path.join(self._bundle, "shim.log"), "a") as file:
            traceback.print_exception(error, file=file)

    def _request(self, peer: Peer, message: Json, _tail: bytes, _fds: list[int]) -> None:
        try:
            operation = self._operations.get(text(message, "op"))
            if operation is None:
                raise RequestError("not implemented", f"shim: no operation {message.get('op')!r}")
            operation(peer, message)
        except ProtocolError as error:
            raise RequestError("invalid argument", str(error)) from None
        except RequestError:
            raise
        except Exception as error:
            self._failed(error)
            raise RequestError("internal", f"shim: {error}") from None

    def _find(self, identity: str) -> Process:
        process = self._execs.all.get(identity) if identity else self._init
        if process is None:
            what = f"exec {identity} in container" if identity else "container"
            raise RequestError("not found", f"{what} {self._id} not found")
        return process

    def _streams(self, identity: str) -> Streams:
        return self._find(identity).streams

    # Create and start

    def _process(self, identity: str, stdio: Json) -> Process:
        return Process(
            self.loop,
            identity,
            stdio,
            bundle=self._bundle,
            run_child=run_child,
            on_finished=self._finished,
        )

    def _create(self, peer: Peer, message: Json) -> None:
        if self._init is not None:
            raise RequestError("already exists", f"container {self._id} was created already")
        self._id = self._controls.container = self._execs.container = text(message, "container")
        runtime = self._runner.runtime = Runtime.from_json(mapping(message, "runtime"))
        stdio = mapping(message, "stdio")
        process = self._process("", stdio)
        if path := text(stdio, "socket"):
            self._stdio = StdioServer(self.loop, path, self._streams, self._run, lambda: self._usage)
        self._init = process
        console = process.console("console.sock")

        image = text(message, "checkpoint")

        def make(log: str) -> list[str]:
            if image:
                return runtime.restore(
                    self._id, image=image, bundle=self._bundle, pid_file="init.pid", log=log, console=console
                )
            return runtime.create(
                self._id,
                bundle=self._bundle,
                pid_file="init.pid",
                log=log,
                console=console,
                no_pivot=bool(message.get("no_pivot")),
                no_new_keyring=bool(message.get("no_new_keyring")),
            )

        def done(error: RequestError | None) -> None:
            self._creating = False
            if error is not None:
                self._create_failed(process)
                peer.refuse(message, error)
            else:
                devices.return_null(process.pid)
                self._restored = bool(image)
                self._controls.container_created(process.pid)
                self._oom = OomWatch(self.loop, self._controls.cgroups, self._out_of_memory)
                ran = [began, time.monotonic()]
                self._save()
                peer.reply(message, pid=process.pid, cgroups=self._controls.cgroups, runtime=ran)
            self._settled()

        self._creating = True
        began = time.monotonic()
        try:
            launch(self.loop, self._runner, "restore" if image else "create", process, make, "init.pid", done)
        except RequestError:
            self._creating = False
            self._create_failed(process)
            raise

    def _create_failed(self, process: Process) -> None:
        """The container could not be created. ``delete`` removes the rest, as after an exit."""
        process.exited = True
        process.status = STOPPED
        process.exit_status = 255
        process.exited_at_ns = time.time_ns()
        self._removal.start(self._id, create_failed=True)

    def _out_of_memory(self) -> None:
        self._oom_seen = True
        self._server.broadcast({"event": "oom"})

    def _settled(self) -> None:
        if not self._creating and not self._starting and not self._execs.starting:
            waiting, self._when_settled = self._when_settled, []
            for callback in waiting:
                callback()

    def _exec_settled(self) -> None:
        """An exec has started, or has failed."""
        self._release_exit()
        self._settled()

    def _publish(self, event: Json) -> None:
        self._server.broadcast(event)

    def _start(self, peer: Peer, message: Json) -> None:
        process = self._find(text(message, "exec_id"))
        if process.started or process.status != CREATED or (process.exited and not self._restored):
            raise RequestError("failed precondition", "cannot start a process that was started already")
        process.started = True
        if process is self._init:
            self._start_init(peer, message, process)
        else:
            try:
                self._start_exec(peer, message, process)
            except BaseException:
                process.started = False
                raise

    def _start_exec(self, peer: Peer, message: Json, process: Process) -> None:
        def done(error: RequestError | None) -> None:
            if error is None:
                peer.reply(message, pid=process.pid)
            else:
                peer.refuse(message, error)

        self._execs.start(process, done)

    def _start_init(self, peer: Peer, message: Json, process: Process) -> None:
        def done(error: RequestError | None) -> None:
            self._starting = False
            if error is None:
                process.status = RUNNING
                peer.reply(message, pid=process.pid)
            else:
                peer.refuse(message, error)
                if not process.exited:
                    os.kill(process.pid, signal.SIGKILL)
                process.streams.abandon()
            self._release_exit()
            self._settled()

        self._starting = True
        if self._restored:
            self._restored = False
            done(None)
            return
        try:
            self._runner.call("start", lambda log: self._runner.runtime.start(self._id, log=log), done)
        except RequestError:
            self._starting = False
            raise

    def _exec(self, peer: Peer, message: Json) -> None:
        self._check_runs()
        self._execs.handle_exec(peer, message)

    def _run(self, peer: Peer, message: Json, spec: bytes, client: AttachRequest | None) -> None:
        try:
            self._check_runs()
            self._execs.run(peer, message, spec, client)
        except BaseException:
            if client is not None:
                client.session.return_socket()
            raise

    def _check_runs(self) -> None:
        if self._find("").exited:
            raise RequestError("failed precondition", "cannot exec in a stopped container")

    # The exit

    def _finished(self, process: Process) -> None:
        """Its exit is known and its output was read: report it in the order of containerd's contract."""
        if process is self._init:
            # Answer Start before the exit event, and report execs' exits before their container's.
            if self._starting or self._restored or self._execs.running:
                self._pending_exit = process
                return
            if self._oom is not None:
                self._oom.check()
                self._oom.close()
        process.status = STOPPED
        if process is self._init:
            if mapping(process.stdio, "options").get("usage") == "1":
                # Before the removal of the cgroups; systemd may have removed them already.
                self._usage = {"cpu_ns": process.cpu_ns, **cgroups.usage(self._controls.cgroups)}
            # First write the record, for a supervisor that finds the shim dead; then notify the connected one.
            self._save()
            self._server.broadcast(
                {
                    "event": "exit",
                    "exec_id": "",
                    "pid": process.pid,
                    "status": process.exit_status,
                    "at_ns": process.exited_at_ns,
                }
            )
            self._removal.start(self._id)
        else:
            self._execs.finished(process)
            self._release_exit()

    def _release_exit(self) -> None:
        pending, self._pending_exit = self._pending_exit, None
        if pending is not None:
            self._finished(pending)

    def _delete(self, peer: Peer, message: Json) -> None:
        identity = text(message, "exec_id")
        if self._init is None:
            # No container was created here.
            peer.reply(message, pid=0, status=0, at_ns=0)
            self._exit()
            return
        process = self._find(identity)
        if process.status not in {STOPPED, CREATED} or (process.started and process.status == CREATED):
            raise RequestError("failed precondition", "cannot delete a running process")
        if identity:
            if process.status == CREATED:
                process.abandon()
            del self._execs.all[identity]
            self._answer_delete(peer, message, process)
            return

        def settled() -> None:
            self._answer_delete(peer, message, process)
            self._exit()

        def removed() -> None:
            # An exec that raced with the exit may still be in the runtime, which writes into the bundle: wait for it,
            # since another container may get the bundle's path next.
            self._when_settled.append(settled)
            self._settled()

        if self._removal.done:
            removed()
            return
        self._removal.when_done(removed)
        self._restored = False
        if process.exited:
            self._release_exit()
            return
        if process.pid:
            # Created and never started: kill it, its exit removes it.
            os.kill(process.pid, signal.SIGKILL)
        elif self._creating:
            # The client that waited for it has given up. The failed call removes the rest.
            self._runner.kill("create", "restore")
        else:
            self._create_failed(process)

    def _answer_delete(self, peer: Peer, message: Json, process: Process) -> None:
        peer.reply(message, pid=process.pid, status=process.exit_status, at_ns=process.exited_at_ns)

    def _exit(self) -> None:
        """No supervisor needs the shim any more; clients that still read the last output are served to the end."""
        self._server.stop_listening()
        if self._stdio is not None:
            self._stdio.stop_listening()
        self.loop.after_round = self._exit_if_idle

    def _exit_if_idle(self) -> None:
        if not Session.alive and not Linger.alive and not Pending.count:
            self.loop.stop()

    # State

    def _state(self, peer: Peer, message: Json) -> None:
        """Answers when operations that an earlier supervisor started have completed."""

        def answer() -> None:
            peer.reply(message, **self._snapshot(), execs=[process.to_json() for process in self._execs.all.values()])

        self._when_settled.append(answer)
        self._settled()

    def _snapshot(self) -> Json:
        return {
            "container": self._id,
            "paused": self._controls.paused,
            "oom": self._oom_seen,
            "cgroups": self._controls.cgroups,
            "shim_pid": os.getpid(),
            "init": self._init.to_json() if self._init is not None else None,
        }

    def _save(self) -> None:
        """Writes the record for a supervisor that finds the shim dead. If it can't be written, the container
        continues."""
        try:
            record.save(STATE, self._snapshot(), self._find(""))
        except OSError as error:
            self._failed(error)
