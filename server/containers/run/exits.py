"""The exit of a container: deletes the task, releases network and mounts, and restarts or removes the container."""

import asyncio
import logging
import time

from engine.api.types import Exit, ProcessState, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.common.timeline import Timeline, latest
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.logs.plugin import stop_logging
from server.containers.model import Container
from server.containers.mounts import mounting
from server.containers.restarts import should_restart
from server.containers.run.records import remove_engine_record
from server.containers.run.remove import remove
from server.containers.run.start import start_by_policy

log = logging.getLogger(__name__)

#: The states of a task whose process has not exited.
ALIVE = (TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.PAUSING)
#: The exit code of a container of whose exit the engine knows nothing.
UNKNOWN_EXIT_CODE = 255


async def on_exit(context: ContainerContext, container: Container, end: Exit | None) -> None:
    """Handles the exit of a container. ``end`` None: the engine has no task, and the exit code is unknown. Repeated
    events and events of an earlier run do nothing.

    :raises WharfError: the engine doesn't answer whether there is a later run.
    """
    timeline = Timeline("exit", container.id, container.owner)
    async with container.lock:
        timeline.waited("lock", "another operation on the container")
        state = container.state
        if not state.running or state.restarting:
            return
        if end is not None and end.pid:
            if state.pid and end.pid != state.pid:
                return
        elif await find_task(context, container) is not None:
            # Without a pid the event may be of an earlier run: the container may have been started again meanwhile.
            return
        call(context.hooks.stopped, container)
        await context.stdio.ended(container.id)
        if context.shares is not None:
            await context.shares.ended(container)
        cleaning = None
        if end is None:
            cleaning = _clean(context, container)
            end = await cleaning or Exit(0, UNKNOWN_EXIT_CODE, time.time_ns())
        await _release(context, container)
        timeline.mark("output, network")
        run_seconds = max(0.0, (time.time_ns() - state.started_ns) / 1e9)
        restarts = context.restarts_of(container)
        # With --restart=false, no policy applies to containers that ended without a daemon.
        applies = (context.config.restart or context.recovered.is_set()) and not restarts.cancelled.is_set()
        restart = applies and should_restart(
            container.host_config.restart_policy,
            exit_code=end.status,
            restarts=container.restart_count,
            stopped=context.shutting_down or container.manually_stopped,
        )
        auto_remove = container.host_config.auto_remove and not restart and not container.manually_restarted
        state.paused, state.pid, state.exit_code = False, 0, end.status
        state.finished_ns = end.exited_at_ns or time.time_ns()
        state.running = state.restarting = restart
        # No await since the state has changed: a log follower that begins later sees the new state, an earlier one is
        # called here.
        call(context.hooks.drained, container)
        if restart:
            container.restart_count += 1
        container.row = None
        # Also before the next await: a client that sees the container stopped has the event.
        context.publish(container, "die", {"exitCode": str(end.status), "execDuration": str(int(run_seconds))})
        try:
            if not auto_remove:
                # A container that is removed next needs no record of its exit: recovery would remove it, too.
                await context.save_state(container)
        finally:
            # After the save: until then only the task has the exit status, if the daemon dies.
            if cleaning is None:
                _clean(context, container)
        timeline.mark("save")
        context.waiters.stopped(container)
        if restart:
            restart_later(context, container, restarts.next_delay(run_seconds))
    if auto_remove:
        await remove_automatically(context, container)
        timeline.mark("remove")
    container.timelines = latest(container.timelines, timeline.done())


async def find_task(context: ContainerContext, container: Container) -> ProcessState | None:
    """The container's task; None: there is none, or it has exited.

    :raises WharfError: the engine doesn't answer.
    """
    try:
        task = await context.engine.tasks.get(container.id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return None
    return task if task.status in ALIVE else None


async def _release(context: ContainerContext, container: Container) -> None:
    try:
        await context.networks.stop(container)
    except (WharfError, OSError) as error:
        log.error("container=%s network is not released: %s", container.id, error)
    await mounting.tear_down(context, container)


def _clean(context: ContainerContext, container: Container) -> "asyncio.Task[Exit | None]":
    """Deletes the task in the background, as the kernel takes long to remove a cgroup and mounts. The next start and
    the removal of the snapshot wait for it (``ContainerContext.wait_cleaned``)."""
    return context.clean(container.id, _delete_task(context, container))


async def _delete_task(context: ContainerContext, container: Container) -> Exit | None:
    end: Exit | None = None
    try:
        # Processes of the container may write until the task is deleted, although the container has stopped.
        with container.layer.writing():
            end = await context.engine.tasks.delete(container.id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s task could not be deleted: %s", container.id, error)
    await remove_engine_record(context, container.id)
    await stop_logging(context, container)
    return end


async def remove_automatically(context: ContainerContext, container: Container) -> None:
    """``--rm``: removes a container that has exited. An error is logged and reported to clients that wait."""
    try:
        await remove(context, container, force=True, volumes=True)
    except WharfError as error:
        # CONFLICT: a client removes it already.
        if error.kind is not Kind.CONFLICT:
            log.error("container=%s --rm failed: %s", container.id, error)
            context.waiters.removed(container, error.message)


def restart_later(context: ContainerContext, container: Container, delay: float) -> None:
    """Starts a container in the state "restarting" in the background, after ``delay`` seconds."""
    context.spawn(_restart(context, container, delay), f"restart {container.id[:12]}")


async def start_with_daemon(context: ContainerContext, container: Container) -> None:
    """Starts a stopped container at the daemon's start because its restart policy requires it."""
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
        # Recovery removes what the last daemon left, and must not meet a container that starts.
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
        # The record has the state "restarting": the next daemon continues.
        return
    async with container.lock:
        if restarts is not context.restarts.get(container.id) or not container.state.restarting:
            return  # started on request, or removed, meanwhile
        await _stay_stopped(context, container)
    if container.host_config.auto_remove:
        await remove_automatically(context, container)


async def end_restart(context: ContainerContext, container: Container) -> None:
    """A container in the state "restarting" stays stopped (``--restart=false``)."""
    async with container.lock:
        if container.state.restarting:
            await _stay_stopped(context, container)


async def _stay_stopped(context: ContainerContext, container: Container) -> None:
    state = container.state
    state.running = state.restarting = False
    await context.save_state(container)
    context.waiters.stopped(container)


async def on_oom(context: ContainerContext, container: Container) -> None:
    """Records that the kernel's OOM killer has killed a process of the container."""
    async with container.lock:
        if container.state.dead:
            return
        # Also if the container has exited: a stock containerd may send the OOM event after the exit event.
        container.state.oom_killed = True
        await context.save_state(container)
        context.publish(container, "oom")
