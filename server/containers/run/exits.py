"""A container has ended: its task is deleted, what it used is given back, and it restarts, stays, or goes."""

import asyncio
import logging
import time

from engine.api.types import Exit, ProcessState, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.common.timeline import Timeline
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.logs.plugin import stop_logging
from server.containers.model import Container
from server.containers.mounts import mounting
from server.containers.restarts import should_restart
from server.containers.run.remove import remove
from server.containers.run.start import forget_container, start_by_policy

log = logging.getLogger(__name__)

#: What a task is while its process is there.
ALIVE = (TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.PAUSING)
#: The exit code of a container whose end nobody saw.
UNSEEN = 255


async def ended(context: ContainerContext, container: Container, end: Exit | None) -> None:
    """``end`` None: it is gone and nobody knows how. Events of an earlier run, and repeated ones, do nothing.

    :raises WharfError: the engine can't be asked whether there is a later run.
    """
    timeline = Timeline("exit")
    async with container.lock:
        state = container.state
        if not state.running or state.restarting:
            return
        if end is not None and end.pid:
            if state.pid and end.pid != state.pid:
                return
        elif await living(context, container) is not None:
            # Of no run in particular: what was found missing may have been started again before we had the lock.
            return
        call(context.hooks.stopped, container)
        await context.stdio.ended(container.id)
        cleaning = None
        if end is None:
            cleaning = _clean(context, container)
            end = await cleaning or Exit(0, UNSEEN, time.time_ns())
        await _give_back(context, container)
        timeline.mark("output, network")
        ran = max(0.0, (time.time_ns() - state.started_ns) / 1e9)
        restarts = context.restarts_of(container)
        again = not restarts.cancelled.is_set() and should_restart(
            container.host_config.restart_policy,
            exit_code=end.status,
            restarts=container.restart_count,
            stopped=context.shutting_down or container.manually_stopped,
        )
        goes = container.host_config.auto_remove and not again and not container.manually_restarted
        state.paused, state.pid, state.exit_code = False, 0, end.status
        state.finished_ns = end.exited_at_ns or time.time_ns()
        state.running = state.restarting = again
        # With the state: who comes to follow the log now either is called or sees that it has ended.
        call(context.hooks.drained, container)
        if again:
            container.restart_count += 1
        container.row = None
        # So it is for the event: who sees that it has ended finds it among those that were told.
        context.publish(container, "die", {"exitCode": str(end.status), "execDuration": str(int(ran))})
        try:
            if not goes:
                # A container that is removed next needs no record of its end: if we die first, recover sees it.
                await context.save_state(container)
        finally:
            # Not before: until then the task alone knows how it ended, should we die.
            if cleaning is None:
                _clean(context, container)
        timeline.mark("save")
        context.waiters.stopped(container)
        if again:
            restart_later(context, container, restarts.next_delay(ran))
    if goes:
        await _auto_remove(context, container)
        timeline.mark("remove")
    timeline.done()


async def living(context: ContainerContext, container: Container) -> ProcessState | None:
    """Its task, if there is one that has not ended.

    :raises WharfError: the engine can't be asked.
    """
    try:
        task = await context.engine.tasks.get(container.id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return None
    return task if task.status in ALIVE else None


async def _give_back(context: ContainerContext, container: Container) -> None:
    try:
        await context.networks.stop(container)
    except (WharfError, OSError) as error:
        log.error("container=%s network is not given back: %s", container.id, error)
    await mounting.tear_down(context, container)


def _clean(context: ContainerContext, container: Container) -> "asyncio.Task[Exit | None]":
    """In the background: nobody waits for the kernel to let go of a cgroup and mounts. Who needs them gone (the next
    start, the snapshot's removal) waits for this."""
    return context.clean(container.id, _delete_task(context, container))


async def _delete_task(context: ContainerContext, container: Container) -> Exit | None:
    end: Exit | None = None
    try:
        end = await context.engine.tasks.delete(container.id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s task could not be deleted: %s", container.id, error)
    await forget_container(context, container.id)
    await stop_logging(context, container)
    return end


async def _auto_remove(context: ContainerContext, container: Container) -> None:
    try:
        await remove(context, container, force=True, volumes=True)
    except WharfError as error:
        # Somebody else removes it: that is what was wanted.
        if error.kind is not Kind.CONFLICT:
            log.error("container=%s --rm failed: %s", container.id, error)
            context.waiters.removed(container, error.message)


def restart_later(context: ContainerContext, container: Container, delay: float) -> None:
    """Starts a container that is "restarting", in the background, after so many seconds."""
    context.spawn(_restart(context, container, delay), f"restart {container.id[:12]}")


async def start_with_daemon(context: ContainerContext, container: Container) -> None:
    """A container that was down when the last daemon ended, and whose policy wants it up."""
    await context.recovered.wait()
    if context.shutting_down:
        return
    failure = await start_by_policy(context, container)
    if failure is None:
        return
    log.error("container=%s could not be started with the daemon: %s", container.id, failure.error)
    if not failure.temporary:
        return
    async with container.lock:
        state = container.state
        if state.running or state.removing or state.dead or context.restarts_of(container).cancelled.is_set():
            return
        state.running = state.restarting = True
        await context.save_state(container)
    await _restart(context, container, context.restarts_of(container).next_delay(0.0))


async def _restart(context: ContainerContext, container: Container, delay: float) -> None:
    restarts = context.restarts_of(container)
    while await restarts.wait(delay):
        # As dockerd: what starts now must not meet the sweep of what the last daemon left.
        await context.recovered.wait()
        if context.shutting_down:
            break
        failure = await start_by_policy(context, container)
        if failure is None:
            return
        log.warning("container=%s restart failed: %s", container.id, failure.error)
        if not failure.temporary:
            break
        delay = restarts.next_delay(0.0)
    if context.shutting_down:
        # The record says "restarting": the next daemon goes on from there.
        return
    async with container.lock:
        if restarts is not context.restarts.get(container.id) or not container.state.restarting:
            # Started on request, or removed, meanwhile.
            return
        state = container.state
        state.running = state.restarting = False
        await context.save_state(container)
        context.waiters.stopped(container)
    if container.host_config.auto_remove:
        await _auto_remove(context, container)


async def out_of_memory(context: ContainerContext, container: Container) -> None:
    """The kernel killed something in the container for want of memory."""
    async with container.lock:
        if container.state.dead:
            return
        # Also of one that has ended: a stock containerd may tell it after the end.
        container.state.oom_killed = True
        await context.save_state(container)
        context.publish(container, "oom")
