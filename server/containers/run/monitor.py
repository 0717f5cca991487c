"""The engine's events, followed for as long as the daemon lives: exits, OOM, and what others do to our tasks.

When the engine goes away the monitor waits for it to come back and then compares what it has with what we believe
(``recover.reconcile``): nothing that happened meanwhile is missed.
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

# What ``_dispatch`` knows. Each health check has events, too, and nobody here wants to hear of them: the ids of
# containers and of execs whose end is told by an event are digits (see ``server.containers.exec.model.DIRECT``).
_WANTED = ('topic=="/tasks/exit",event.id~="^[0-9a-f]"', 'topic~="^/tasks/(oom|paused|resumed)$"')

timeouts.define("engine.return", 30.0)  # one wait for an engine that is away; then it is logged and waited for again


class Monitor:
    """``start`` returns when the subscription stands: no event after that is missed."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self) -> None:
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
        """The container may have ended without an event: asks the engine."""
        self._context.spawn(self._ask(container), f"ask {container.id[:12]}")

    async def _ask(self, container: Container) -> None:
        try:
            state = await self._context.engine.tasks.get(container.id)
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                await exits.ended(self._context, container, None)
            return
        if state.status is TaskStatus.STOPPED:
            await exits.ended(self._context, container, Exit(state.pid, state.exit_status, state.exited_at_ns))

    async def _run(self) -> None:
        first = True
        while True:
            try:
                wanted = [f'namespace=="{self._context.engine.namespace}",{each}' for each in _WANTED]
                async with self._context.engine.events.subscribe(*wanted) as events:
                    if first:
                        first = False
                        self._ready.set()
                    else:
                        log.info("the engine is back")
                        await reconcile(self._context)
                    # Until then the sweep works on a list of who runs. Events wait in the subscription.
                    await self._context.recovered.wait()
                    async for event in events:
                        self._dispatch(event)
            except WharfError as error:
                if first:
                    raise
                if error.kind not in (Kind.UNAVAILABLE, Kind.CANCELLED, Kind.DEADLINE_EXCEEDED):
                    log.error("following the engine's events: %s", error)
                else:
                    log.warning("the engine is away: %s", error)
                await self._return()

    async def _return(self) -> None:
        while True:
            try:
                await self._context.engine.connect(deadline=timeouts.seconds("engine.return"))
            except WharfError as error:
                log.warning("the engine is still away: %s", error)
            else:
                return

    def _dispatch(self, event: Event) -> None:
        """Each event is handled in a task of its own: one container's lock must not hold up the others.

        Order is kept per container by its lock, which is fair.
        """
        context, message = self._context, event.event
        match message:
            case messages.TaskExit():
                container = context.registry.by_id(message.container_id)
                if container is None:
                    return
                end = Exit(message.pid, message.exit_status, to_ns(message.exited_at))
                if message.id == message.container_id:
                    context.spawn(_guarded(exits.ended(context, container, end), container), "exit")
                else:
                    context.spawn(_exec_exited(context, container, message.id, end), "exec exit")
            case messages.TaskOOM():
                container = context.registry.by_id(message.container_id)
                if container is not None:
                    context.spawn(_guarded(exits.out_of_memory(context, container), container), "oom")
            case messages.TaskPaused() | messages.TaskResumed():
                container = context.registry.by_id(message.container_id)
                if container is not None:
                    paused = isinstance(message, messages.TaskPaused)
                    context.spawn(_guarded(_frozen(context, container, paused=paused), container), "pause")


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
            log.exception("container=%s exec %s: its end could not be handled", container.id, exec_id)


async def _frozen(context: ContainerContext, container: Container, *, paused: bool) -> None:
    """Somebody else (ctr) paused or resumed the task; our own pause has set the state already.

    It may have been set back since: the engine is asked before an event that comes late is believed.
    """
    async with container.lock:
        state = container.state
        if not state.running or state.restarting or state.paused == paused:
            return
        task = await exits.living(context, container)
        if task is None or (task.status is TaskStatus.PAUSED) != paused:
            return
        state.paused = paused
        call(context.hooks.paused if paused else context.hooks.unpaused, container)
        context.publish(container, "pause" if paused else "unpause")
        await context.save_state(container)
