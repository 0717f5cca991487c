"""The record of one exec, kept in memory as in dockerd: it ends with the daemon's life, or a while after its own."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.api.extensions import Execution
from engine.api.stdio import SessionEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What create asked for. ``detach_keys``: bytes, b"" the default ones. ``console_size``: height, width."""

    cmd: Sequence[str]
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: bytes = b""
    console_size: tuple[int, int] = (0, 0)


#: The prefix of the engine's ids of execs that the shim runs for us (``engine.api.extensions``) and forgets itself. The
#: filter of ``containers.run.monitor`` leaves their events out.
DIRECT = "run-"


class Session(Protocol):
    """A client that was handed over."""

    async def ended(self) -> SessionEnd:
        """Waits for the end of the session."""

    def abandon(self) -> None:
        """Nobody waits for it."""


@dataclass(slots=True, eq=False)
class ExecInstance:
    """``exit_code`` None: has not ended. ``running`` is set from the moment of start's acceptance."""

    id: str
    container_id: str
    request: ExecRequest
    running: bool = False
    exit_code: int | None = None
    #: Its id in the engine.
    key: str = ""
    #: The connection to its shim, where that runs it for us.
    execution: Execution | None = None
    pid: int = 0
    pidfd: int = -1
    #: Set when the process runs, or will never.
    started: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when its exit was handled.
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.key = self.id

    @property
    def command(self) -> str:
        """As events show it: dockerd joins the program and the arguments, also where there are none."""
        return f"{self.request.cmd[0]} {' '.join(self.request.cmd[1:])}"

    def show(self) -> dict[str, Any]:
        """``GET /exec/{id}/json``."""
        request = self.request
        process: dict[str, Any] = {
            "tty": request.tty,
            "entrypoint": request.cmd[0],
            "arguments": list(request.cmd[1:]),
            "privileged": request.privileged,
        }
        if request.user:
            process["user"] = request.user
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": process,
            "OpenStdin": request.stdin,
            "OpenStderr": request.stderr,
            "OpenStdout": request.stdout,
            "CanRemove": False,
            "ContainerID": self.container_id,
            "DetachKeys": base64.b64encode(request.detach_keys).decode(),
            "Pid": self.pid,
        }
