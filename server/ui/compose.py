"""Runs the compose CLI of this machine for a project whose files are here, as the labels of its containers say.

Only administrators may: the command runs as root. On an engine with a policy the labels of users' containers are not
followed: they would let a user choose the files that root reads.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, conflict, invalid, not_found
from server.access.caller import Caller
from server.config.hosts import parse_host
from server.containers.registry import View
from server.http.answers import dumps_escaped
from server.http.hijack import connection_of
from server.http.jsonstreams import NDJSON
from server.http.streams import byte_stream
from server.ui.login import small_json

timeouts.define("ui.compose", 1800.0)  # one command; a pull of large images takes long
timeouts.define("ui.compose.end", 10.0)  # from SIGINT to SIGKILL

#: The arguments of each action.
ACTIONS: Mapping[str, Sequence[str]] = {
    "up": ("up", "--detach"),
    "down": ("down",),
    "pull": ("pull",),
    "restart": ("restart",),
}
_LABEL = "com.docker.compose.project"
#: Of one read of the command's output.
_CHUNK = 16 * 1024


@dataclass(frozen=True, slots=True)
class Project:
    """Where a project is on this machine."""

    name: str
    directory: str
    files: Sequence[str]
    environment: Sequence[str]

    def arguments(self) -> list[str]:
        words = ["--project-name", self.name, "--project-directory", self.directory]
        for file in self.files:
            words += ["--file", file]
        for file in self.environment:
            words += ["--env-file", file]
        return words


def find(name: str, containers: View) -> Project:
    """The project with this name.

    :raises WharfError: NOT_FOUND: no container belongs to it; FAILED_PRECONDITION: its files are not on this machine.
    """
    for container in containers:
        labels = container.labels
        if labels.get(_LABEL) != name or container.owner:
            continue
        files = [file for file in labels.get(f"{_LABEL}.config_files", "").split(",") if file]
        environment = [file for file in labels.get(f"{_LABEL}.environment_file", "").split(",") if file]
        directory = labels.get(f"{_LABEL}.working_dir", "")
        missing = [
            path for path in (directory, *files, *environment) if not os.path.isabs(path) or not os.path.exists(path)
        ]
        if not files or missing:
            what = f"{missing[0]} does not exist" if files and missing[0] else "its containers name no files"
            raise WharfError(Kind.FAILED_PRECONDITION, f"project {name}: {what} on this machine")
        return Project(name, directory, files, environment)
    raise not_found(f"no container of an administrator belongs to a project {name}")


def _program() -> Sequence[str]:
    """:raises WharfError: FAILED_PRECONDITION: compose is not installed."""
    if found := shutil.which("docker-compose"):
        return (found,)
    if found := shutil.which("docker"):
        return found, "compose"
    raise WharfError(Kind.FAILED_PRECONDITION, "docker-compose is not installed on this machine")


class Composer:
    """``hosts``: where the API listens; the command needs a unix socket without a scope."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        self._running: set[str] = set()

    def _socket(self) -> str:
        """:raises WharfError: FAILED_PRECONDITION: the API has no such socket."""
        for text in self._hosts:
            host = parse_host(text)
            if host.scheme == "unix" and not host.scope:
                return f"unix://{host.path}"
        raise WharfError(
            Kind.FAILED_PRECONDITION, "compose needs a unix socket of the engine: start it with -H unix://"
        )

    async def start(self, project: Project, action: str) -> AsyncIterator[bytes]:
        """Starts the command; returns its output as NDJSON: ``{"output": …}``, at last ``{"status": …}``. It ends with
        the iterator.

        :raises WharfError: see above; CONFLICT: one runs for this project already.
        """
        command = [*_program(), "--ansi=never", "--progress=plain", *project.arguments(), *ACTIONS[action]]
        address = self._socket()
        if project.name in self._running:
            raise conflict(f"project {project.name}: another command of the page runs")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "DOCKER_HOST": address},
            start_new_session=True,
        )
        self._running.add(project.name)
        return self._output(project, process)

    async def _output(self, project: Project, process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
        assert process.stdout is not None
        try:
            async with timeouts.limit("ui.compose"):
                while data := await process.stdout.read(_CHUNK):
                    yield _line({"output": data.decode(errors="replace")})
                yield _line({"status": await process.wait()})
        except TimeoutError:
            yield _line({"output": "the command takes too long and is ended\n"})
            yield _line({"status": 124})
        finally:
            await _end(process)
            self._running.discard(project.name)


def _line(document: Mapping[str, object]) -> bytes:
    return dumps_escaped(document) + b"\n"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the command as Ctrl-C would, so that compose stops at a whole step."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        async with timeouts.limit("ui.compose.end"):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _check(caller: Caller) -> None:
    if not caller.unrestricted:
        raise WharfError(Kind.PERMISSION_DENIED, "compose runs as root: only administrators may start it")


async def run(request: Request) -> Response:
    """``{"project": NAME, "action": "up" | "down" | "pull" | "restart"}``."""
    _check(request.scope["session"].caller)
    body = await small_json(request)
    action, name = body.get("action"), body.get("project")
    if action not in ACTIONS or not isinstance(action, str):
        raise invalid(f"action: one of {', '.join(ACTIONS)} is needed")
    if not isinstance(name, str):
        raise invalid("project: a name is needed")
    connection_of(request).disconnect_cancels = True
    page = request.app.state.page
    project = find(name, page.services(request).containers.visible)
    return byte_stream(await page.composer.start(project, action), media_type=NDJSON, early=True, name="compose")
