"""``docker exec``: create, start (attached or detached), resize, inspect.

An exec's record is kept for ``KEPT`` seconds after its exit, for ``docker inspect``. The process is a child of the
container's shim and outlives this daemon; the record doesn't, as with dockerd.
"""

import asyncio
import contextlib
import copy
import logging
import os
import secrets
import select
from collections.abc import Mapping
from typing import Any

from engine.api.extensions import Execution
from engine.api.stdio import SessionEnd
from engine.api.types import TaskStatus
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, conflict, internal, invalid, not_found
from server.access.caller import EVERYONE, Caller
from server.containers.context import ContainerContext
from server.containers.create import confine
from server.containers.exec import run
from server.containers.exec.model import DIRECT, HEALTH, ExecInstance, ExecRequest, Session
from server.containers.exec.process import ExecProcesses
from server.containers.model import Container
from server.containers.run.failures import NOT_EXECUTABLE, UNKNOWN
from server.containers.run.process import ProcessFiles
from server.containers.run.stop import is_restarting, not_running
from server.containers.spec.users import lookup
from server.containers.stdio.client import Client

log = logging.getLogger(__name__)

#: Seconds from an exec's exit to the removal of its record.
KEPT = 600.0
timeouts.define("exec.ready", 10.0)  # a resize waits for the start of the process
timeouts.define("exec.exit", 10.0)  # from the exit of a process to the engine's event


class Exec:
    """The execs that were created in this daemon. Methods that take ``id`` raise NOT_FOUND ``No such exec
    instance``."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._containers = context.registry.seen_by(EVERYONE)
        self._execs: dict[str, ExecInstance] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._processes = ExecProcesses(context)
        context.hooks.exec_exited.append(self._on_exit_event)
        context.hooks.stopped.append(self._container_stopped)
        context.hooks.removed.append(self._container_removed)

    def seen_by(self, caller: Caller) -> "Exec":
        """The execs in containers that exist for a caller: the same records, with other look-ups."""
        view = copy.copy(self)
        view._containers = self._context.registry.seen_by(caller)
        return view

    def get(self, id: str) -> ExecInstance:
        found = self._execs.get(id)
        if found is None or self._containers.by_id(found.container_id) is None:
            raise not_found(f"No such exec instance: {id}")
        return found

    def get_active(self, id: str) -> ExecInstance:
        """As ``get``, for an exec whose container runs.

        :raises WharfError: NOT_FOUND; CONFLICT: the container doesn't run, is paused or restarting.
        """
        found = self.get(id)
        container = self._containers.get(found.container_id)
        _check_active(container, container.id)
        return found

    async def check_user(self, key: str, user: str) -> None:
        """Checks at create that the container has the user, while the client still gets the error as a status.

        :raises WharfError: INVALID_ARGUMENT ``unable to find user``; CONFLICT: the container doesn't run.
        """
        container = self._containers.get(key)
        _check_active(container, key)
        files = ProcessFiles(container, self._context.reader(container))
        try:
            # In a thread: a FUSE or network file system of the container may block the read.
            await asyncio.to_thread(lookup, user, (), files)
        except WharfError as error:
            raise invalid(error.message) from None
        except OSError:
            _check_active(container, key)  # the container has exited meanwhile

    def create(self, key: str, request: ExecRequest, *, quiet: bool = False) -> ExecInstance:
        """Makes the record of an exec; ``start`` runs it. ``quiet``: not in the container's ``ExecIDs``, and no record
        after its exit (health checks).

        :raises WharfError: INVALID_ARGUMENT: no command; CONFLICT: the container doesn't run; PERMISSION_DENIED: the
            caller's role does not allow it.
        """
        if not request.cmd:
            raise invalid("No exec command specified")
        container = self._containers.get(key)
        confine.check_exec(self._containers.caller, privileged=request.privileged, user=request.user)
        _check_active(container, key)
        instance = ExecInstance(secrets.token_hex(32), container.id, request)
        self._execs[instance.id] = instance
        if quiet:
            instance.key = f"{instance.id}{HEALTH}"
        else:
            container.exec_ids.add(instance.id)
        self._publish(container, instance, f"exec_create: {instance.command}")
        return instance

    def active(self, container: Container) -> bool:
        """Whether an exec that a client has created in this daemon runs in a container; see also ``survivors``."""
        found = (self._execs.get(id) for id in container.exec_ids)
        return any(instance is not None and instance.running for instance in found)

    async def inspect(self, id: str) -> dict[str, Any]:
        """The answer of ``GET /exec/{id}/json``. Waits for the exit event of a process that has exited: a client that
        has read the end of the output expects the exit code."""
        instance = self.get(id)
        if instance.running:
            with contextlib.suppress(WharfError):
                async with timeouts.limit("exec.exit"):
                    await instance.started.wait()
                    if instance.running and (_has_exited(instance) or await self._is_ending(instance)):
                        await instance.ended.wait()
        return instance.show()

    async def _is_ending(self, instance: ExecInstance) -> bool:
        """Whether the process is about to exit: the engine has seen its exit, or the shim was killed, which ended the
        output and makes the kernel kill the process."""
        if instance.execution is not None:
            return instance.execution.shim_lost
        state = await self._context.engine.tasks.get(instance.container_id, instance.key)
        return state.status is TaskStatus.STOPPED

    def check_start(self, id: str) -> ExecInstance:
        """The exec ``id``, if it can be started.

        :raises WharfError: CONFLICT: it was started already, or its container is paused.
        """
        instance = self.get(id)
        if instance.exit_code is not None:
            raise conflict(f"Error: Exec command {id} has already run")
        if instance.running:
            raise conflict(f"Error: Exec command {id} is already running")
        container = self._context.registry.by_id(instance.container_id)
        if container is not None and container.state.paused:
            raise run.is_paused(container.id)
        return instance

    async def start(
        self, id: str, *, client: Client | None = None, framed: bool = True, console_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Starts an exec. Without ``client`` (detached) returns when the process runs, else when the client's session
        has ended. ``framed``: the output is in stdcopy frames. ``console_size``: (height, width).

        :raises WharfError: without ``client``: CONFLICT, or why the process could not be started. With one, the error
        is     written to the stream, as by dockerd.
        """
        try:
            instance = self.check_start(id)
            self._context.expect_move()
            session = await self.launch(instance, client, console_size, framed=framed)
        except WharfError as error:
            if client is None:
                raise
            log.info("exec %s: %s", id, error.message)
            await client.finish(client.head + _error_output(error, framed=framed))
            return
        if client is None:
            return
        client.sock.close()
        if session is not None and await session.ended() is SessionEnd.DETACHED:
            container = self._context.registry.by_id(instance.container_id)
            if container is not None:
                self._publish(container, instance, "exec_detach")

    async def launch(
        self,
        instance: ExecInstance,
        client: Client | None,
        console_size: tuple[int, int] = (0, 0),
        *,
        framed: bool | None = None,
    ) -> Session | None:
        """Starts the process and returns the client's session when it runs. ``framed`` None: framed unless the process
        has a terminal.

        :raises WharfError: why the process could not be started. The exec then has an exit code.
        """
        instance.running = True
        container = self._context.registry.by_id(instance.container_id)
        started_ns = container.state.started_ns if container is not None else 0
        try:
            if container is None or not container.state.running:
                raise conflict(f"container {instance.container_id} is not running")
            self._publish(container, instance, f"exec_start: {instance.command}")
            process = await self._processes.make(container, instance.request, console_size)
            session = await self._run(container, instance, process, client, framed=framed)
            if instance.running:
                # ProcessLookupError: it has exited, and the shim has reaped it. pidfd stays -1.
                with contextlib.suppress(ProcessLookupError):
                    instance.pidfd = os.pidfd_open(instance.pid)
        except run.StartFailed as failed:
            self._set_exit_code(instance, NOT_EXECUTABLE if failed.code == UNKNOWN else failed.code)
            error = failed.error
        except (WharfError, OSError) as failure:
            self._set_exit_code(instance, NOT_EXECUTABLE)
            error = internal((failure.strerror or str(failure)).lower()) if isinstance(failure, OSError) else failure
        else:
            return session
        finally:
            instance.started.set()
        state_error = None
        if container is not None:
            state_error = await run.state_error(self._context, container, started_ns, error)
        raise state_error or error

    async def _run(
        self,
        container: Container,
        instance: ExecInstance,
        process: dict[str, object],
        client: Client | None,
        *,
        framed: bool | None,
    ) -> Session | None:
        if self._context.engine.extensions.runs_execs:
            key = instance.key
            instance.key = f"{DIRECT}{key}"
            execution = await run.start_by_extension(self._context, container, instance, process, client, framed=framed)
            if execution is not None:
                instance.execution, instance.pid = execution, execution.pid
                task = asyncio.create_task(
                    self._follow(container, instance, execution), name=f"exec {instance.id[:12]}"
                )
                self._followers.add(task)
                task.add_done_callback(self._followers.discard)
                return execution
            instance.key = key
        return await run.start_by_calls(self._context, container, instance, process, client, framed=framed)

    async def _follow(self, container: Container, instance: ExecInstance, execution: Execution) -> None:
        """Waits for the exit of an exec that the shim runs by one request."""
        end = await execution.exit()
        if end is None:
            # The shim was killed, and the kernel kills its container. The engine's event of that may be lost.
            self._context.check_exit(container)
        else:
            self._on_exit(container, instance, end[0])

    async def resize(self, id: str, height: int, width: int) -> None:
        """Resizes the exec's terminal; waits until the process runs.

        :raises WharfError: NOT_FOUND: it has exited; INTERNAL: it doesn't start in time.
        """
        instance = self.get_active(id)
        try:
            async with timeouts.limit("exec.ready"):
                await instance.started.wait()
        except WharfError:
            raise internal("timeout waiting for exec session ready") from None
        if not instance.running:
            raise not_found(f"process does not exist {id}: not found")
        await self._context.engine.tasks.resize_pty(
            instance.container_id, exec_id=instance.key, width=width, height=height
        )

    async def kill(self, instance: ExecInstance, signal: int) -> None:
        """Sends a signal; a process that has exited is no error."""
        try:
            await self._context.engine.tasks.kill(instance.container_id, signal, exec_id=instance.key)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    # exit

    async def close(self) -> None:
        """Ends the tasks that wait for exits. The processes keep running; their exit codes are lost."""
        followers = list(self._followers)
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)

    async def resume(self) -> None:
        """At the daemon's start: removes execs of the last daemon that have exited meanwhile."""
        containers = [container for container in self._context.registry if container.state.running]
        await asyncio.gather(*(self._resume(container) for container in containers))

    async def _resume(self, container: Container) -> None:
        for exec_id in await self._context.stdio.resume(container.id):
            try:
                if (await self._context.engine.tasks.get(container.id, exec_id)).status is not TaskStatus.STOPPED:
                    continue
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    log.warning("container=%s exec %s: %s", container.id, exec_id, error)
                    continue
            await self._on_exit_event(container, exec_id, 0, 0)

    async def _on_exit_event(self, container: Container, exec_id: str, status: int, _at_ns: int) -> None:
        # stdio.ended also for an exec that has its exit code from the container's exit: it closes the pipes.
        instance = self._execs.get(exec_id.removesuffix(HEALTH))
        await self._context.stdio.ended(container.id, exec_id)
        if instance is not None:
            self._on_exit(container, instance, status)
        try:
            await self._context.engine.tasks.delete_exec(container.id, exec_id)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.UNAVAILABLE):
                log.warning("container=%s exec %s could not be deleted: %s", container.id, exec_id, error)

    def _on_exit(self, container: Container, instance: ExecInstance, status: int) -> None:
        if instance.exit_code is None:
            self._set_exit_code(instance, status)
            self._publish(container, instance, "exec_die", {"exitCode": str(status)})

    def _set_exit_code(self, instance: ExecInstance, code: int) -> None:
        """Ends the exec, unless it has an exit code; its record is removed later."""
        if instance.exit_code is not None:
            return
        instance.running = False
        instance.exit_code = code
        instance.started.set()
        instance.ended.set()
        if instance.pidfd >= 0:
            os.close(instance.pidfd)
            instance.pidfd = -1
        container = self._context.registry.by_id(instance.container_id)
        if container is not None and instance.id in container.exec_ids:
            container.exec_ids.discard(instance.id)
            asyncio.get_running_loop().call_later(KEPT, self._execs.pop, instance.id, None)
        else:
            self._execs.pop(instance.id, None)

    def _container_stopped(self, container: Container) -> None:
        self._processes.discard(container)
        for instance in list(self._execs.values()):
            if instance.container_id != container.id:
                continue
            if instance.running:
                # The kernel has killed it with the container's first process. The shim may not have reported its exit.
                self._on_exit(container, instance, 137)
            elif instance.exit_code is None:
                # It was not started, and belongs to the run that has ended.
                container.exec_ids.discard(instance.id)
                self._execs.pop(instance.id, None)

    def _container_removed(self, container: Container) -> None:
        self._processes.discard(container)
        for id in [id for id, instance in self._execs.items() if instance.container_id == container.id]:
            del self._execs[id]

    def _publish(
        self, container: Container, instance: ExecInstance, action: str, extra: Mapping[str, str] | None = None
    ) -> None:
        self._context.publish(container, action, {"execID": instance.id, **(extra or {})})


def _check_active(container: Container, name: str) -> None:
    """Checks that the container can run an exec. ``name``: the container in the error's sentence.

    :raises WharfError: CONFLICT: it doesn't run, is paused or restarting.
    """
    state = container.state
    if not state.running:
        raise not_running(container)
    if state.paused:
        raise run.is_paused(name)
    if state.restarting:
        raise is_restarting(container)


def _error_output(error: WharfError, *, framed: bool) -> bytes:
    """An error as output of the stream, on stdout as dockerd writes it."""
    text = error.message.encode() + b"\r\n"
    return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text if framed else text


def _has_exited(instance: ExecInstance) -> bool:
    """Whether the process of a started exec has exited."""
    if instance.pidfd < 0:
        return True
    poll = select.poll()
    poll.register(instance.pidfd, select.POLLIN)
    return bool(poll.poll(0))
