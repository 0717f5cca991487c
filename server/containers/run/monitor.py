"""The subscription to the engine's events: exits, OOM, and pauses by other clients of the engine.

If the connection to the engine is lost, the monitor connects again and compares the engine's tasks with the records
(``recover.reconcile``), for events that it has missed.
"""

import asyncio
import logging

from engine.api.pb import event_messages_pb2 as messages
from engine.api.types import Event, Exit, TaskStatus, to_ns
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.model import Container
from server.containers.run import exits
from server.containers.run.recover import reconcile

log = logging.getLogger(__name__)

# The events that ``_dispatch`` handles. Ids of containers and of execs by containerd's calls are hexadecimal; execs
# with other ids, such as health checks, need no event of the engine (``server.containers.exec.model.DIRECT``).
_FILTERS = (
    'topic=="/tasks/exit",event.id~="^[0-9a-f]"',
    *(f'topic=="/tasks/{topic}"' for topic in ("oom", "paused", "resumed")),
)

timeouts.define("engine.return", 30.0)  # one attempt to connect to the engine again; it is repeated after a log line


class Monitor:
    """Follows the engine's events in a background task."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Subscribes; no event after the return is missed.

        :raises WharfError: the engine refuses the subscription.
        """
        context = self._context
        context.check_exit = self.check_exit
        self._task = asyncio.create_task(self._run(), name="container monitor")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def check_exit(self, container: Container) -> None:
        """Asks the engine, in the background, whether the container has exited without an event."""
        self._context.spawn(self._check_exit(container), f"check exit {container.id[:12]}")

    async def _check_exit(self, container: Container) -> None:
        try:
            state = await self._context.engine.tasks.get(container.id)
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                await exits.on_exit(self._context, container, None)
            return
        if state.status is TaskStatus.STOPPED:
            await exits.on_exit(self._context, container, Exit(state.pid, state.exit_status, state.exited_at_ns))

    async def _run(self) -> None:
        first = True
        while True:
            try:
                filters = [f'namespace=="{self._context.engine.namespace}",{each}' for each in _FILTERS]
                async with self._context.engine.events.subscribe(*filters) as events:
                    if first:
                        first = False
                        self._ready.set()
                    else:
                        log.info("the connection to the engine is back")
                        await reconcile(self._context)
                    # Recovery decides by the list of running containers, which an event would change. Events wait in
                    # the subscription.
                    await self._context.recovered.wait()
                    async for event in events:
                        self._dispatch(event)
            except WharfError as error:
                if first:
                    raise
                if error.kind not in (Kind.UNAVAILABLE, Kind.CANCELLED, Kind.DEADLINE_EXCEEDED):
                    log.error("the subscription to the engine's events failed: %s", error)
                else:
                    log.warning("the connection to the engine is lost: %s", error)
                await self._reconnect()

    async def _reconnect(self) -> None:
        while True:
            try:
                await self._context.engine.connect(deadline=timeouts.seconds("engine.return"))
            except WharfError as error:
                log.warning("the engine can't be reached: %s", error)
            else:
                return

    def _dispatch(self, event: Event) -> None:
        """Handles an event in a task of its own, as the handler waits for the container's lock. The events of one
        container are handled in order: ``asyncio.Lock`` is fair."""
        context, message = self._context, event.event
        match message:
            case messages.TaskExit():
                container = context.registry.by_id(message.container_id)
                if container is None:
                    return
                end = Exit(message.pid, message.exit_status, to_ns(message.exited_at))
                if message.id == message.container_id:
                    context.spawn(_guarded(exits.on_exit(context, container, end), container), "exit")
                else:
                    context.spawn(_exec_exited(context, container, message.id, end), "exec exit")
            case messages.TaskOOM():
                container = context.registry.by_id(message.container_id)
                if container is not None:
                    context.spawn(_guarded(exits.on_oom(context, container), container), "oom")
            case messages.TaskPaused() | messages.TaskResumed():
                container = context.registry.by_id(message.container_id)
                if container is not None:
                    paused = isinstance(message, messages.TaskPaused)
                    context.spawn(_guarded(_on_pause(context, container, paused=paused), container), "pause")


async def _guarded(work: "asyncio.Future[None] | object", container: Container) -> None:
    try:
        await work  # type: ignore[misc]
    except Exception:
        log.exception("container=%s event could not be handled", container.id)


async def _exec_exited(context: ContainerContext, container: Container, exec_id: str, end: Exit) -> None:
    for hook in context.hooks.exec_exited:
        try:
            await hook(container, exec_id, end.status, end.exited_at_ns)
        except Exception:
            log.exception("container=%s exec %s: exit could not be handled", container.id, exec_id)


async def _on_pause(context: ContainerContext, container: Container, *, paused: bool) -> None:
    """Another client of the engine (ctr) has paused or resumed the task; after our own pause the state is set already.

    The event may be late, so the engine is asked for the current state.
    """
    async with container.lock:
        state = container.state
        if not state.running or state.restarting or state.paused == paused:
            return
        task = await exits.find_task(context, container)
        if task is None or (task.status is TaskStatus.PAUSED) != paused:
            return
        state.paused = paused
        call(context.hooks.paused if paused else context.hooks.unpaused, container)
        context.publish(container, "pause" if paused else "unpause")
        await context.save_state(container)
