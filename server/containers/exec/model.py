"""The record of one exec. As in dockerd it is only in memory, and discarded some time after the exit."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.api.extensions import Execution
from engine.api.stdio import SessionEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """The body of ``POST /containers/{id}/exec``. ``detach_keys`` b"": the default keys. ``console_size``: (height,
    width), (0, 0) if not set."""

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


#: The prefix of the engine's ids of execs that the shim runs by one request (``engine.api.extensions``). The shim
#: reports their exits to us itself, so ``containers.run.monitor`` doesn't subscribe to their events.
DIRECT = "run-"
#: The end of the engine's ids of health checks, which are no activity of a client.
HEALTH = "-health"


class Session(Protocol):
    """The session of a client whose socket the shim has."""

    async def ended(self) -> SessionEnd:
        """Waits for the end of the session."""

    def abandon(self) -> None:
        """Call it instead of ``ended``. The session continues."""


@dataclass(slots=True, eq=False)
class ExecInstance:
    """An exec. ``exit_code`` None: it has not exited. ``running``: set when a start is accepted, until the exit."""

    id: str
    container_id: str
    request: ExecRequest
    running: bool = False
    exit_code: int | None = None
    #: The id in the engine.
    key: str = ""
    #: The connection to the shim, if the shim runs the exec by one request.
    execution: Execution | None = None
    pid: int = 0
    pidfd: int = -1
    #: Set when the process runs, or could not be started.
    started: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when the exit is handled.
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.key = self.id

    @property
    def command(self) -> str:
        """The command as events show it: dockerd joins program and arguments with a space, also without arguments."""
        return f"{self.request.cmd[0]} {' '.join(self.request.cmd[1:])}"

    def show(self) -> dict[str, Any]:
        """The answer of ``GET /exec/{id}/json``."""
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
