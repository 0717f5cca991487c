"""The start of an exec: one request to our own shim (``engine.api.extensions``), or containerd's calls."""

import asyncio
import contextlib
from collections.abc import Iterator

import orjson

from engine.api.extensions import Execution, run_exec
from engine.api.stdio import Attach, AttachSession, Stdio, StdioUri
from engine.api.types import TaskStatus
from engine.common import timeouts
from engine.common.errors import Kind, Reason, WharfError, conflict, internal
from engine.shim.kernel.processes import is_exiting
from server.containers.context import ContainerContext
from server.containers.exec.model import ExecInstance
from server.containers.model import Container
from server.containers.run import exits
from server.containers.run.failures import refusal, start_failure
from server.containers.run.stop import not_running
from server.containers.stdio.client import DEFAULT_KEYS, Client
from server.containers.stdio.stdio import owner, socket_path
from server.containers.values.signals import SIGKILL


class StartFailed(Exception):
    """The runtime could not start the process. ``code``: the exec's exit code; ``error``: for the client."""

    def __init__(self, error: WharfError) -> None:
        super().__init__(error.message)
        self.code, self.error = start_failure(error)


def is_paused(name: str) -> WharfError:
    """dockerd's error for an exec in a paused container."""
    return conflict(f"Container {name} is paused, unpause the container before exec")


async def state_error(
    context: ContainerContext, container: Container, started_ns: int, error: WharfError
) -> WharfError | None:
    """If an exec failed with ``error`` because the container was paused or has exited meanwhile: the error that
    ``create`` raises for that state. None: the exec failed for another reason.

    ``started_ns``: the start of the container's run in which the exec was started.
    """
    paused = is_paused(container.id)
    if refusal(error)[1] is Reason.CONTAINER_PAUSED:  # the container may run again by now
        return paused
    # A pause or an exit that is being handled holds the lock.
    async with container.lock:
        state = container.state
        if state.running and not state.restarting and state.started_ns == started_ns:
            if state.paused:
                return paused
            try:
                task = await exits.find_task(context, container)
            except WharfError:
                return None
            # When the first process of a PID namespace exits, the kernel kills the others before it reports the exit.
            if task is not None and not is_exiting(task.pid):
                return paused if task.status is not TaskStatus.RUNNING else None
        return not_running(container)


def _stdio_options(context: ContainerContext, container: Container, instance: ExecInstance) -> dict[str, str]:
    """The options of the exec's ``StdioUri``."""
    return {"stdin": str(int(instance.request.stdin)), "stdin-once": "1", **owner(context, container)}


async def start_by_extension(
    context: ContainerContext,
    container: Container,
    instance: ExecInstance,
    process: dict[str, object],
    client: Client | None,
    *,
    framed: bool | None,
) -> Execution | None:
    """Starts the process with one request to the shim, which also gets the client's socket. ``framed`` None: framed
    unless the process has a terminal. None: the shim is of an earlier version, or an I/O host owns the stdio.

    :raises StartFailed: the runtime could not start the process.
    :raises WharfError: another reason. After an error the shim doesn't use the client's socket, but may have sent the
        head.
    """
    adjustment = process.get("oomScoreAdj")
    try:
        execution = await run_exec(
            socket_path(context, container),
            instance.key,
            orjson.dumps(process),
            options=_stdio_options(context, container, instance),
            terminal=instance.request.tty,
            oom_score_adj=adjustment if isinstance(adjustment, int) else None,
            client=(_attach_options(instance, client, framed=framed), client.sock) if client is not None else None,
        )
    except WharfError as error:
        if error.kind is Kind.NOT_IMPLEMENTED:
            return None
        if error.kind is Kind.INTERNAL:
            raise StartFailed(error) from error
        raise
    if client is not None:
        client.head = b""  # sent by the shim
    return execution


async def start_by_calls(
    context: ContainerContext,
    container: Container,
    instance: ExecInstance,
    process: dict[str, object],
    client: Client | None,
    *,
    framed: bool | None,
) -> AttachSession | None:
    """Starts the process with containerd's calls and returns the client's session, None without a client. The exit is
    an event of the engine.

    :raises StartFailed: the engine could not start the process.
    :raises WharfError: another reason. After an error the stdio doesn't use the client's socket.
    """
    with _withdrawn_on_cancel(context, container, instance):
        tasks = context.engine.tasks
        stdio = Stdio(socket_path(context, container))
        terminal = instance.request.tty
        uri = StdioUri(stdio.path, _stdio_options(context, container, instance))
        session: AttachSession | None = None
        try:
            pipes = await context.stdio.open(container.id, instance.key, uri, terminal=terminal)
            await tasks.exec(
                container.id,
                instance.key,
                spec=process,
                stdin=pipes.stdin,
                stdout=pipes.stdout,
                stderr=pipes.stderr,
                terminal=terminal,
            )
        except (WharfError, OSError):
            await context.stdio.abandoned(container.id, instance.key)
            raise
        try:
            if client is not None:
                session = await stdio.open(_attach_options(instance, client, framed=framed), client.sock)
                client.head = b""  # sent by the session
            instance.pid = await tasks.start(container.id, instance.key)
        except (WharfError, OSError) as error:
            with contextlib.suppress(WharfError):
                await tasks.delete_exec(container.id, instance.key)
            await context.stdio.abandoned(container.id, instance.key)
            if session is not None:
                # Wait until the stdio has closed the session: the caller writes to the socket next.
                with contextlib.suppress(WharfError):
                    async with timeouts.limit("stdio.handover"):
                        await session.ended()
            if isinstance(error, OSError):
                error = internal((error.strerror or str(error)).lower())
            raise StartFailed(error) from error
        await context.stdio.started(container.id, instance.key)
        return session


@contextlib.contextmanager
def _withdrawn_on_cancel(context: ContainerContext, container: Container, instance: ExecInstance) -> Iterator[None]:
    """Removes the process in the background if the block is cancelled, as when a health check's container stops."""
    try:
        yield
    except asyncio.CancelledError:
        context.spawn(_withdraw(context, container.id, instance.key), f"withdraw {instance.id[:12]}")
        raise


async def _withdraw(context: ContainerContext, container_id: str, key: str) -> None:
    """Removes a process in any state of its start."""
    with contextlib.suppress(WharfError):
        await context.engine.tasks.kill(container_id, SIGKILL, exec_id=key)
    with contextlib.suppress(WharfError):
        await context.engine.tasks.delete_exec(container_id, key)
    await context.stdio.abandoned(container_id, key)


def _attach_options(instance: ExecInstance, client: Client, *, framed: bool | None) -> Attach:
    request = instance.request
    return Attach(
        exec_id=instance.key,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
        framed=not request.tty if framed is None else framed,
        detach_keys=(request.detach_keys or DEFAULT_KEYS) if request.tty else b"",
        early=client.early,
        head=client.head,
    )
