"""The execs of a container, in two ways. The supervisor adds, starts and deletes an exec, as containerd's API does. The
daemon instead sends one request ``run`` to the container's stdio (``engine.api.extensions``): its answers report the
start and the exit, and the shim forgets the exec then."""

import contextlib
import json
import os
import time
from collections.abc import Callable

from engine.shim.container.launcher import launch
from engine.shim.container.process import CREATED, RUNNING, STOPPED, Process
from engine.shim.kernel import processes
from engine.shim.loop import Loop
from engine.shim.protocol import Json, RequestError, mapping, text
from engine.shim.runtime.oci import Runtime
from engine.shim.runtime.runner import Done, Runner
from engine.shim.server import Peer
from engine.shim.stdio.attach import AttachRequest


class Execs:
    """``make`` creates a process from its id and stdio. ``on_settled`` is called when a start has completed or failed.
    ``on_event`` sends an event to the supervisors."""

    def __init__(
        self,
        loop: Loop,
        runner: Runner,
        make: Callable[[str, Json], Process],
        *,
        on_settled: Callable[[], None],
        on_event: Callable[[Json], None],
    ) -> None:
        self.container = ""
        self.all: dict[str, Process] = {}
        self._loop = loop
        self._runner = runner
        self._make = make
        self._on_settled = on_settled
        self._on_event = on_event
        # The daemon's connection of each exec that it runs, by the exec's id.
        self._lines: dict[str, Peer] = {}

    @property
    def starting(self) -> bool:
        """Whether a start is in progress."""
        return any(process.started and process.status == CREATED for process in self.all.values())

    @property
    def running(self) -> bool:
        """Whether an exec's exit is not reported yet."""
        return any(process.pid and process.status != STOPPED for process in self.all.values())

    def add(self, message: Json, spec: bytes) -> Process:
        identity = text(message, "exec_id")
        if not identity:
            raise RequestError("invalid argument", "an exec needs an id")
        if identity in self.all:
            raise RequestError("already exists", f"exec {identity} already exists")
        process = self._make(identity, mapping(message, "stdio"))
        process.spec = spec
        self.all[identity] = process
        return process

    def handle_exec(self, peer: Peer, message: Json) -> None:
        """The supervisor's operation ``exec``."""
        spec = mapping(message, "spec")
        self.add(message, json.dumps(spec).encode()).oom_score_adj = spec.get("oomScoreAdj")
        peer.reply(message)

    def run(self, peer: Peer, message: Json, spec: bytes, client: AttachRequest | None) -> None:
        """The daemon's operation ``run``. Sent on its connection: ``pid``, or the error; then ``ended`` of the client's
        session, and finally ``exit``."""
        process = self.add(message, spec)
        process.oom_score_adj = message.get("oom_score_adj")
        identity = process.id

        def done(error: RequestError | None) -> None:
            if error is None:
                self._lines[identity] = peer
                self._on_event({"event": "run", "exec_id": identity, "pid": process.pid, "stdio": process.stdio})
                peer.send({"pid": process.pid})
            else:
                del self.all[identity]
                peer.refuse(message, error)

        try:
            if client is not None:
                client.join(process.streams)
            process.started = True
            self.start(process, done)
        except BaseException:
            del self.all[identity]
            raise

    def start(self, process: Process, done: Done) -> None:
        """Starts the exec; calls ``done`` when it runs or has failed.

        :raises RequestError: the runtime can't be executed.
        """
        name = self._runner.name("exec")
        spec, pid_file = f"{name}.json", f"{name}.pid"
        with open(spec, "wb") as file:
            file.write(process.spec)
        process.spec = b""
        console = process.console(f"{name}.sock")
        runtime: Runtime = self._runner.runtime

        def make(log: str) -> list[str]:
            return runtime.exec(self.container, process=spec, pid_file=pid_file, log=log, console=console)

        def ended(error: RequestError | None) -> None:
            with contextlib.suppress(OSError):
                os.unlink(spec)
            if error is None:
                process.status = RUNNING
            else:
                process.status = STOPPED
                process.exit_status = 255
                process.exited_at_ns = time.time_ns()
            done(error)
            self._on_settled()

        # crun applies oom_score_adj only to a container's first process.
        with processes.oom_score_adj(process.oom_score_adj):
            launch(self._loop, self._runner, "exec", process, make, pid_file, ended)

    def finished(self, process: Process) -> None:
        """The process has exited and its output was read."""
        end = {"status": process.exit_status, "at_ns": process.exited_at_ns}
        line = self._lines.pop(process.id, None)
        if line is not None:
            del self.all[process.id]
        self._on_event(
            {"event": "exit", "exec_id": process.id, "pid": process.pid, **end, "forgotten": line is not None}
        )
        if line is not None:
            line.send({"exit": end})
            line.close()
