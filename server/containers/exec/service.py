"""``docker exec``: create, start (with a client's socket or without), resize, inspect.

An exec that ended is kept for a while, so that its exit code can be asked for. The process itself belongs to the
container's shim and outlives this daemon; its record does not, as with dockerd.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import select
from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.api.extensions import Execution
from engine.api.stdio import SessionEnd
from engine.api.types import TaskStatus
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, conflict, internal, invalid, not_found
from server.containers.context import ContainerContext
from server.containers.exec import run
from server.containers.exec.model import DIRECT, ExecInstance, ExecRequest, Session
from server.containers.model import Container
from server.containers.run.failures import NOT_EXECUTABLE, UNKNOWN
from server.containers.run.process import ProcessFiles
from server.containers.spec.process import exec_process, merge_env
from server.containers.spec.users import lookup
from server.containers.stdio.client import Client

log = logging.getLogger(__name__)

#: How long the record of an exec that ended can be asked for, in seconds.
KEPT = 600.0
timeouts.define("exec.ready", 10.0)  # a resize waits this long for the process to run
timeouts.define("exec.exit", 10.0)  # from a process's end to the engine's event


class Exec:
    """All execs of this daemon's life. Methods that take ``id`` raise NOT_FOUND ``No such exec instance``."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._execs: dict[str, ExecInstance] = {}
        self._followers: set[asyncio.Task[None]] = set()
        # Container id → (its start, the process of its spec): one question to the engine per run.
        self._processes: dict[str, tuple[int, Mapping[str, Any]]] = {}
        context.hooks.exec_exited.append(self._exited)
        context.hooks.stopped.append(self._container_stopped)
        context.hooks.removed.append(self._container_removed)

    def get(self, id: str) -> ExecInstance:
        found = self._execs.get(id)
        if found is None or self._context.registry.by_id(found.container_id) is None:
            raise not_found(f"No such exec instance: {id}")
        return found

    def get_active(self, id: str) -> ExecInstance:
        """
        :raises WharfError: CONFLICT, too, unless its container runs.
        """
        found = self.get(id)
        container = self._context.registry.get(found.container_id)
        _check_active(container, container.id)
        return found

    async def check_user(self, key: str, user: str) -> None:
        """An exec for nobody whom the container knows is refused when it is made, as its user can still be told.

        :raises WharfError: INVALID_ARGUMENT ``unable to find user``; CONFLICT unless the container runs.
        """
        container = self._context.registry.get(key)
        _check_active(container, key)
        files = ProcessFiles(container)
        try:
            # In a thread: the files are the container's, and what serves them may take its time.
            await asyncio.to_thread(lookup, user, (), files)
        except WharfError as error:
            raise invalid(error.message) from None
        except OSError:
            _check_active(container, key)  # its process has gone in this moment

    def create(self, key: str, request: ExecRequest, *, quiet: bool = False) -> ExecInstance:
        """Notes an exec for ``start``. ``quiet``: for health checks, which nobody asks for by id.

        :raises WharfError: INVALID_ARGUMENT without a command; CONFLICT unless the container runs.
        """
        if not request.cmd:
            raise invalid("No exec command specified")
        container = self._context.registry.get(key)
        _check_active(container, key)
        instance = ExecInstance(secrets.token_hex(32), container.id, request)
        self._execs[instance.id] = instance
        if not quiet:
            container.exec_ids.add(instance.id)
        self._publish(container, instance, f"exec_create: {instance.command}")
        return instance

    async def inspect(self, id: str) -> dict[str, Any]:
        """What dockerd shows. A process that has just ended is shown with its exit code: a client that saw the
        end of its output asks for it at once, and the engine's word may still be on its way."""
        instance = self.get(id)
        if instance.running:
            with contextlib.suppress(WharfError):
                async with timeouts.limit("exec.exit"):
                    await instance.started.wait()
                    if instance.running and (_gone(instance) or await self._is_ending(instance)):
                        await instance.ended.wait()
        return instance.show()

    async def _is_ending(self, instance: ExecInstance) -> bool:
        """Its shim was killed: its client saw the end of the output, the process is killed in this moment."""
        if instance.execution is not None:
            return instance.execution.shim_lost
        state = await self._context.engine.tasks.get(instance.container_id, instance.key)
        return state.status is TaskStatus.STOPPED

    def check_start(self, id: str) -> ExecInstance:
        """
        :raises WharfError: CONFLICT if it ran already, or its container does not run now.
        """
        instance = self.get(id)
        if instance.exit_code is not None:
            raise conflict(f"Error: Exec command {id} has already run")
        if instance.running:
            raise conflict(f"Error: Exec command {id} is already running")
        container = self._context.registry.by_id(instance.container_id)
        if container is not None and container.state.paused:
            raise conflict(f"Container {container.id} is paused, unpause the container before exec")
        return instance

    async def start(
        self, id: str, *, client: Client | None = None, framed: bool = True, console_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Runs it. Without ``client`` (detached) returns when the process runs; with one, when its session has
        ended: output ``framed`` or not, failures told in the stream as dockerd does.

        :raises WharfError: (detached) CONFLICT, or why the process could not be started.
        """
        try:
            instance = self.check_start(id)
            session = await self.launch(instance, client, console_size, framed=framed)
        except WharfError as error:
            if client is None:
                raise
            log.info("exec %s: %s", id, error.message)
            await client.finish(client.head + _told(error, framed=framed))
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
        """Runs the process and returns when it does; the session is the client's. ``framed`` None: unless it has a
        terminal.

        :raises WharfError: why it could not be started; it then counts as ended.
        """
        instance.running = True
        container = self._context.registry.by_id(instance.container_id)
        began = container.state.started_ns if container is not None else 0
        try:
            if container is None or not container.state.running:
                raise conflict(f"container {instance.container_id} is not running")
            self._publish(container, instance, f"exec_start: {instance.command}")
            process = await self._process(container, instance, console_size)
            session = await self._run(container, instance, process, client, framed=framed)
            if instance.running:
                # Gone already, reaped by its shim: it stays -1.
                with contextlib.suppress(ProcessLookupError):
                    instance.pidfd = os.pidfd_open(instance.pid)
        except run.Failed as failed:
            self._end(instance, NOT_EXECUTABLE if failed.code == UNKNOWN else failed.code)
            error = failed.error
        except (WharfError, OSError) as failure:
            self._end(instance, NOT_EXECUTABLE)
            error = internal((failure.strerror or str(failure)).lower()) if isinstance(failure, OSError) else failure
        else:
            return session
        finally:
            instance.started.set()
        unfit = await run.unfit(self._context, container, began, error) if container is not None else None
        raise unfit or error

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
            instance.key = f"{DIRECT}{instance.id}"
            execution = await run.by_extension(self._context, container, instance, process, client, framed=framed)
            if execution is not None:
                instance.execution, instance.pid = execution, execution.pid
                task = asyncio.create_task(
                    self._follow(container, instance, execution), name=f"exec {instance.id[:12]}"
                )
                self._followers.add(task)
                task.add_done_callback(self._followers.discard)
                return execution
            instance.key = instance.id
        return await run.by_calls(self._context, container, instance, process, client, framed=framed)

    async def _follow(self, container: Container, instance: ExecInstance, execution: Execution) -> None:
        """Waits for the end of an exec that its shim runs for us."""
        end = await execution.exit()
        if end is None:
            # The shim is gone, and its container with it: that is an event of the engine, which may be lost.
            self._context.check_exit(container)
        else:
            self._over(container, instance, end[0])

    async def _process(
        self, container: Container, instance: ExecInstance, console_size: tuple[int, int]
    ) -> dict[str, object]:
        request, config = instance.request, container.config
        own = await self._container_process(container)
        env = list(own["env"])
        if request.tty and not any(entry.startswith("TERM=") for entry in env):
            env.append("TERM=xterm")
        elif config.tty and not request.tty and "TERM" not in {e.partition("=")[0] for e in config.env or ()}:
            env = [entry for entry in env if not entry.startswith("TERM=")]
        size = console_size if console_size != (0, 0) else request.console_size
        user = request.user or config.user
        make = partial(
            exec_process,
            own,
            args=request.cmd,
            env=merge_env(env, request.env),
            files=ProcessFiles(container),
            host=self._context.facts,
            user=user,
            group_add=tuple(container.host_config.group_add or ()),
            cwd=request.working_dir or config.working_dir or "/",
            tty=request.tty,
            privileged=request.privileged,
            console_size=size,
        )
        # In a thread: the files are the container's, and what serves them may take its time.
        try:
            return await asyncio.to_thread(make) if user else make()
        except ProcessLookupError:
            raise conflict(f"container {container.id} is not running") from None

    async def _container_process(self, container: Container) -> Mapping[str, Any]:
        started, process = self._processes.get(container.id, (0, {}))
        if started == container.state.started_ns and process:
            return process
        record = await self._context.engine.containers.get(container.id)
        if record.spec is None:
            raise internal(f"container {container.id} has no spec")
        found: Any = record.spec["process"]
        self._processes[container.id] = (container.state.started_ns, found)
        return found  # type: ignore[no-any-return]

    async def resize(self, id: str, height: int, width: int) -> None:
        """
        :raises WharfError: NOT_FOUND if it has ended; INTERNAL if it doesn't start in time.
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
        """Sends a signal; a process that has ended is no error."""
        try:
            await self._context.engine.tasks.kill(instance.container_id, signal, exec_id=instance.key)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    # The end.

    async def close(self) -> None:
        """Execs go on, with nobody to ask for their exit codes."""
        followers = list(self._followers)
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)

    async def resume(self) -> None:
        """At the daemon's start: execs of its last life that ended meanwhile are let go, others go on."""
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
            await self._exited(container, exec_id, 0, 0)

    async def _exited(self, container: Container, exec_id: str, status: int, _at_ns: int) -> None:
        # Also of one whose end was told with its container's: its pipes are there until somebody closes them.
        instance = self._execs.get(exec_id)
        await self._context.stdio.ended(container.id, exec_id)
        if instance is not None:
            self._over(container, instance, status)
        try:
            await self._context.engine.tasks.delete_exec(container.id, exec_id)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.UNAVAILABLE):
                log.warning("container=%s exec %s could not be deleted: %s", container.id, exec_id, error)

    def _over(self, container: Container, instance: ExecInstance, status: int) -> None:
        if instance.exit_code is None:
            self._end(instance, status)
            self._publish(container, instance, "exec_die", {"exitCode": str(status)})

    def _end(self, instance: ExecInstance, code: int) -> None:
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
        self._processes.pop(container.id, None)
        for instance in list(self._execs.values()):
            if instance.container_id != container.id:
                continue
            if instance.running:
                # Its end came with the container's; if its shim could not tell, nobody shall wait for it.
                self._over(container, instance, 137)
            elif instance.exit_code is None:
                # What was not started goes with the container's run, for which it was made.
                container.exec_ids.discard(instance.id)
                self._execs.pop(instance.id, None)

    def _container_removed(self, container: Container) -> None:
        self._processes.pop(container.id, None)
        for id in [id for id, instance in self._execs.items() if instance.container_id == container.id]:
            del self._execs[id]

    def _publish(
        self, container: Container, instance: ExecInstance, action: str, extra: Mapping[str, str] | None = None
    ) -> None:
        self._context.publish(container, action, {"execID": instance.id, **(extra or {})})


def _check_active(container: Container, name: str) -> None:
    """:raises WharfError: CONFLICT unless it runs, in dockerd's words."""
    state = container.state
    if not state.running:
        raise conflict(f"container {container.id} is not running")
    if state.paused:
        raise conflict(f"Container {name} is paused, unpause the container before exec")
    if state.restarting:
        raise conflict(f"Container {container.id} is restarting, wait until the container is running")


def _told(error: WharfError, *, framed: bool) -> bytes:
    """A failure as the stream's only output, on stdout as dockerd writes it."""
    text = error.message.encode() + b"\r\n"
    return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text if framed else text


def _gone(instance: ExecInstance) -> bool:
    """Whether a process that was started has ended."""
    if instance.pidfd < 0:
        return True
    poll = select.poll()
    poll.register(instance.pidfd, select.POLLIN)
    return bool(poll.poll(0))
