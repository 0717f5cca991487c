"""Operations on a container's processes: signals, pause, resources, terminal size, pids."""

import json
import os
from collections.abc import Callable, Mapping

from engine.shim.container.process import STOPPED, Process
from engine.shim.kernel import cgroups
from engine.shim.protocol import Json, RequestError, integer, mapping, text
from engine.shim.runtime.runner import Runner
from engine.shim.server import Peer


class Controls:
    """``find("")`` is the first process, ``find(exec_id)`` an exec; raises RequestError for an unknown one."""

    def __init__(self, runner: Runner, find: Callable[[str], Process], execs: Mapping[str, Process]) -> None:
        self._runner = runner
        self._find = find
        self._execs = execs
        self.container = ""
        self.paused = False
        self.cgroups: dict[str, str] = {}
        self.operations: dict[str, Callable[[Peer, Json], None]] = {
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "checkpoint": self._checkpoint,
            "resize": self._resize,
            "close_io": self._close_io,
            "pids": self._pids,
        }

    def container_created(self, pid: int) -> None:
        """The container was created. Look up its cgroups now: its init may move itself into a sub-cgroup later."""
        self.cgroups = cgroups.own_directories(pid)

    def _running_init(self) -> Process:
        process = self._find("")
        if process.exited:
            raise RequestError("not found", "process already finished")
        return process

    def _simple(self, peer: Peer, message: Json, verb: str, make: Callable[[str], list[str]]) -> None:
        def done(error: RequestError | None) -> None:
            if error is not None:
                peer.refuse(message, error)
                return
            if verb in {"pause", "resume"}:
                self.paused = verb == "pause"
            peer.reply(message)

        self._runner.call(verb, make, done)

    def _kill(self, peer: Peer, message: Json) -> None:
        process = self._find(text(message, "exec_id"))
        number = integer(message, "signal")
        if message.get("all") and not process.id:
            self._running_init()
            self._simple(
                peer,
                message,
                "kill",
                lambda log: self._runner.runtime.kill(self.container, number, everything=True, log=log),
            )
            return
        if process.exited or process.status == STOPPED:
            raise RequestError("not found", "process already finished")
        if not process.pid:
            raise RequestError("failed precondition", "process is not running")
        try:
            # An unreaped child of this process: its pid can't be reused.
            os.kill(process.pid, number)
        except ProcessLookupError:
            raise RequestError("not found", "process already finished") from None
        except OSError as error:
            raise RequestError("invalid argument", f"kill with signal {number}: {error.strerror}") from None
        peer.reply(message)

    def _pause(self, peer: Peer, message: Json) -> None:
        self._running_init()
        self._simple(peer, message, "pause", lambda log: self._runner.runtime.pause(self.container, log=log))

    def _resume(self, peer: Peer, message: Json) -> None:
        self._running_init()
        self._simple(peer, message, "resume", lambda log: self._runner.runtime.resume(self.container, log=log))

    def _update(self, peer: Peer, message: Json) -> None:
        self._running_init()
        name = self._runner.name("resources")
        with open(name, "w") as file:
            json.dump(mapping(message, "resources"), file)
        self._simple(
            peer, message, "update", lambda log: self._runner.runtime.update(self.container, resources=name, log=log)
        )

    def _checkpoint(self, peer: Peer, message: Json) -> None:
        self._running_init()
        image, requested = text(message, "image"), message.get("options")
        options = [str(word) for word in requested] if isinstance(requested, list) else []
        self._simple(
            peer,
            message,
            "checkpoint",
            lambda log: self._runner.runtime.checkpoint(self.container, image=image, options=options, log=log),
        )

    def _resize(self, peer: Peer, message: Json) -> None:
        self._find(text(message, "exec_id")).resize(integer(message, "width"), integer(message, "height"))
        peer.reply(message)

    def _close_io(self, peer: Peer, message: Json) -> None:
        self._find(text(message, "exec_id")).close_input()
        peer.reply(message)

    def _pids(self, peer: Peer, message: Json) -> None:
        process = self._running_init()
        execs = {other.pid: other.id for other in self._execs.values() if other.pid and not other.exited}
        pids = {process.pid, *execs}
        for directory in self.cgroups.values():
            # Each hierarchy has all processes.
            pids.update(cgroups.pids(directory))
            break
        peer.reply(message, pids=[[pid, execs.get(pid, "")] for pid in sorted(pids)])
