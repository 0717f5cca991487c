"""Tasks in the supervisor's memory: the last reported state of each shim, so that a query needs no call."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.api.pb import task_pb2
from engine.api.types import to_timestamp
from engine.common.errors import WharfError, not_found
from engine.shim import protocol
from engine.shim.container.process import CREATED, RUNNING, STOPPED
from engine.shim.protocol import Json
from engine.supervisor.shims import ShimClient
from engine.supervisor.tasks.bundle import Bundle
from engine.supervisor.tasks.options import RuntimeOptions

_STATUS = {CREATED: task_pb2.CREATED, RUNNING: task_pb2.RUNNING, STOPPED: task_pb2.STOPPED}


@dataclass(frozen=True, slots=True)
class Stdio:
    """The paths or URIs of a request, unchanged."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False

    def to_json(self) -> dict[str, object]:
        return {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "terminal": self.terminal}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Stdio":
        return cls(
            protocol.text(data, "stdin"),
            protocol.text(data, "stdout"),
            protocol.text(data, "stderr"),
            bool(data.get("terminal")),
        )


class Process:
    """A container's first process (``id`` empty) or an exec."""

    __slots__ = ("_waiter", "exit_status", "exited_at_ns", "id", "pid", "status", "stdio")

    def __init__(self, id: str, stdio: Stdio) -> None:
        self.id = id
        self.stdio = stdio
        self.status = CREATED
        self.pid = 0
        self.exit_status = 0
        self.exited_at_ns = 0
        self._waiter: asyncio.Future[None] | None = None

    def update(self, state: Mapping[str, object]) -> None:
        """Copies the state that a shim reported (``engine.shim.container.process.Process.to_json``)."""
        self.pid = protocol.integer(state, "pid")
        status = protocol.text(state, "status", CREATED)
        if status == STOPPED:
            self.set_exited(protocol.integer(state, "exit_status"), protocol.integer(state, "exited_at_ns"))
        else:
            self.status = status

    def set_exited(self, status: int, at_ns: int) -> None:
        self.status, self.exit_status, self.exited_at_ns = STOPPED, status, at_ns
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def set_deleted(self, error: WharfError) -> None:
        """It was deleted and never ran: ``wait`` raises the error."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
            self._waiter.exception()  # there may be no waiter

    async def wait(self) -> None:
        """Returns when it has exited. NOT_FOUND: it was deleted without having run."""
        if self.status == STOPPED:
            return
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        # Shielded: a cancelled waiter must not end the wait of others.
        await asyncio.shield(self._waiter)


@dataclass(slots=True)
class Task:
    """One container's task. ``shim`` is None when its shim has died: all its processes have exited then."""

    namespace: str
    id: str
    bundle: Bundle
    options: RuntimeOptions
    init: Process
    shim: ShimClient | None = None
    shim_pid: int = 0
    execs: dict[str, Process] = field(default_factory=dict)
    paused: bool = False
    cgroups: Mapping[str, str] = field(default_factory=dict)
    deleting: "asyncio.Task[None] | None" = None
    cleanup: "asyncio.Task[None] | None" = None
    """The cleanup after the death of its shim; until it ends, the known state is outdated."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.id

    def process(self, exec_id: str) -> Process:
        """Raises NOT_FOUND for an exec that doesn't exist."""
        if not exec_id:
            return self.init
        process = self.execs.get(exec_id)
        if process is None:
            raise not_found(f'process "{exec_id}" of task "{self.id}": not found')
        return process

    def update(self, state: Json) -> None:
        """Copies the shim's answer to ``state``."""
        self.shim_pid = protocol.integer(state, "shim_pid")
        self.paused = bool(state.get("paused"))
        self.cgroups = {key: str(value) for key, value in protocol.mapping(state, "cgroups").items()}
        self.init.update(protocol.mapping(state, "init"))
        execs = state.get("execs")
        for one in execs if isinstance(execs, list) else ():
            self.add_exec(protocol.text(one, "id"), one).update(one)

    def add_exec(self, id: str, state: Json) -> Process:
        """Adds an exec that the shim reported."""
        given = protocol.mapping(protocol.mapping(state, "stdio"), "given")
        self.execs[id] = process = Process(id, Stdio.from_json(given))
        process.pid = protocol.integer(state, "pid")
        return process

    def to_message(self, process: Process) -> task_pb2.Process:
        status = _STATUS[process.status]
        if self.paused and status == task_pb2.RUNNING:
            status = task_pb2.PAUSED
        message = task_pb2.Process(
            container_id=self.id,
            id=process.id or self.id,
            pid=process.pid,
            status=status,
            stdin=process.stdio.stdin,
            stdout=process.stdio.stdout,
            stderr=process.stdio.stderr,
            terminal=process.stdio.terminal,
            exit_status=process.exit_status,
        )
        if process.status == STOPPED:
            message.exited_at.CopyFrom(to_timestamp(process.exited_at_ns))
        return message
