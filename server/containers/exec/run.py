"""Starts an exec: with one request to our own shim (``engine.api.extensions``), or with containerd's calls."""

import asyncio
import contextlib
from collections.abc import Iterator

import orjson

from engine.api.extensions import Execution, run_exec
from engine.api.stdio import Attach as Wishes
from engine.api.stdio import AttachSession, Stdio, StdioUri
from engine.api.types import TaskStatus
from engine.common import timeouts
from engine.common.errors import Kind, Reason, WharfError, conflict, internal
from engine.shim.kernel.processes import is_exiting
from server.containers.context import ContainerContext
from server.containers.exec.model import ExecInstance
from server.containers.model import Container
from server.containers.run import exits
from server.containers.run.failures import refusal, start_failure
from server.containers.stdio.client import DEFAULT_KEYS, Client
from server.containers.stdio.stdio import owner, socket_path
from server.containers.values.signals import SIGKILL


class Failed(Exception):
    """The runtime could not start it: the exit code that Docker gives that, and the error to tell."""

    def __init__(self, error: WharfError) -> None:
        super().__init__(error.message)
        self.code, self.error = start_failure(error)


async def unfit(context: ContainerContext, container: Container, run: int, error: WharfError) -> WharfError | None:
    """Why nothing could be executed if that was for the state that the container had got into meanwhile: what is told
    when it is known before. None: it was for something else. ``run``: when the container's run began.
    """
    paused = conflict(f"Container {container.id} is paused, unpause the container before exec")
    if refusal(error)[1] is Reason.CONTAINER_PAUSED:  # the pause may be over
        return paused
    # A pause, or an end, that is under way has the lock.
    async with container.lock:
        state = container.state
        if state.running and not state.restarting and state.started_ns == run:
            if state.paused:
                return paused
            try:
                task = await exits.living(context, container)
            except WharfError:
                return None
            # The first process of a namespace takes all others along before anybody is told of its end.
            if task is not None and not is_exiting(task.pid):
                return paused if task.status is not TaskStatus.RUNNING else None
        return conflict(f"container {container.id} is not running")


def options(context: ContainerContext, container: Container, instance: ExecInstance) -> dict[str, str]:
    """Of a ``StdioUri``."""
    return {"stdin": str(int(instance.request.stdin)), "stdin-once": "1", **owner(context, container)}


async def by_extension(
    context: ContainerContext,
    container: Container,
    instance: ExecInstance,
    process: dict[str, object],
    client: Client | None,
    *,
    framed: bool | None,
) -> Execution | None:
    """None: the shim is of an earlier version, or an I/O host owns the container's stdio.

    :raises Failed: the runtime could not start the process. :raises WharfError: another reason. The client's socket is
        unused then, but its head may be written.
    """
    adjustment = process.get("oomScoreAdj")
    try:
        execution = await run_exec(
            socket_path(context, container),
            instance.key,
            orjson.dumps(process),
            options=options(context, container, instance),
            terminal=instance.request.tty,
            oom_score_adj=adjustment if isinstance(adjustment, int) else None,
            client=(_wishes(instance, client, framed=framed), client.sock) if client is not None else None,
        )
    except WharfError as error:
        if error.kind is Kind.NOT_IMPLEMENTED:
            return None
        if error.kind is Kind.INTERNAL:
            raise Failed(error) from error
        raise
    if client is not None:
        # The shim has written it.
        client.head = b""
    return execution


async def by_calls(
    context: ContainerContext,
    container: Container,
    instance: ExecInstance,
    process: dict[str, object],
    client: Client | None,
    *,
    framed: bool | None,
) -> AttachSession | None:
    """The session of the client. The end of the process is an event of the engine.

    :raises Failed: :raises WharfError: why it does not run. The client's socket has been given back then.
    """
    with _taken_back(context, container, instance):
        tasks = context.engine.tasks
        stdio = Stdio(socket_path(context, container))
        terminal = instance.request.tty
        uri = StdioUri(stdio.path, options(context, container, instance))
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
                session = await stdio.open(_wishes(instance, client, framed=framed), client.sock)
                # The head goes with the session; from here on the client has it.
                client.head = b""
            instance.pid = await tasks.start(container.id, instance.key)
        except (WharfError, OSError) as error:
            with contextlib.suppress(WharfError):
                await tasks.delete_exec(container.id, instance.key)
            await context.stdio.abandoned(container.id, instance.key)
            if session is not None:
                # The stdio gives the socket back before we write to it ourselves.
                with contextlib.suppress(WharfError):
                    async with timeouts.limit("stdio.handover"):
                        await session.ended()
            if isinstance(error, OSError):
                error = internal((error.strerror or str(error)).lower())
            raise Failed(error) from error
        await context.stdio.started(container.id, instance.key)
        return session


@contextlib.contextmanager
def _taken_back(context: ContainerContext, container: Container, instance: ExecInstance) -> Iterator[None]:
    """What was begun goes if whoever started it gives up."""
    try:
        yield
    except asyncio.CancelledError:
        context.spawn(_withdraw(context, container.id, instance.key), f"withdraw {instance.id[:12]}")
        raise


async def _withdraw(context: ContainerContext, container_id: str, key: str) -> None:
    """Whoever started it has given up (a health check whose container stops): nobody will tell how it went."""
    with contextlib.suppress(WharfError):
        await context.engine.tasks.kill(container_id, SIGKILL, exec_id=key)
    with contextlib.suppress(WharfError):
        await context.engine.tasks.delete_exec(container_id, key)
    await context.stdio.abandoned(container_id, key)


def _wishes(instance: ExecInstance, client: Client, *, framed: bool | None) -> Wishes:
    request = instance.request
    return Wishes(
        exec_id=instance.key,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
        framed=not request.tty if framed is None else framed,
        detach_keys=(request.detach_keys or DEFAULT_KEYS) if request.tty else b"",
        early=client.early,
        head=client.head,
    )
