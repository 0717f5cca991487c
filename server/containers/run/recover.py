"""What is compared at the daemon's start, and when the engine comes back: our records with the engine's tasks.

At the start, first all that the last daemon left is taken over or removed, then ends are looked at, and only then may
anything start a container (``ContainerContext.recovered``): the sweep decides by lists that a start would make stale.

A container that ended meanwhile is treated as if its exit event came now. What has no record (a crash in the
middle of create, start or remove) is taken away; only what carries our label, as the engine may serve others.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Iterable

from engine.api.types import Exit, ProcessState, TaskStatus
from engine.common.errors import WharfError
from engine.common.system import mounts
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.hooks import call
from server.containers.model import Container
from server.containers.mounts import left_volumes, mounting
from server.containers.restarts import should_restart
from server.containers.run import exits
from server.containers.run.process import started_time
from server.containers.run.remove import remove
from server.containers.run.start import forget_container, forget_task
from server.containers.run.stop import unpause

log = logging.getLogger(__name__)


async def load(context: ContainerContext) -> None:
    """Reads all records into the registry."""
    for container in await context.store.load():
        context.registry.add(container)
        for point in container.mounts.values():
            if point.kind == "volume":
                context.volumes.refer(point.name, container.id)
                if container.state.running and not container.state.restarting:
                    context.volumes.adopt(point.name, mounting.user_of(container, point))


async def recover(context: ContainerContext) -> None:
    """At start, when the monitor follows the events already and the networks are there."""
    tasks = await _tasks(context)
    for container in context.registry:
        if container.state.restarting and tasks.pop(container.id, None) is not None:
            # As with a start on request: one that is not on record did not happen.
            await forget_task(context, container.id)
            await forget_container(context, container.id)
    running = [c for c in context.registry if c.state.running and not c.state.restarting]
    alive = [c for c in running if _alive(tasks.get(c.id))]
    waiting = [c for c in context.registry if c.state.restarting]
    was_down = [c for c in context.registry if not c.state.running]
    # Where an end is found below, its network is given back the usual way: so those count as running here.
    await context.networks.recover(running)
    await _sweep(context, tasks)
    await context.volumes.sweep()
    await _compare(context, tasks)
    for container in alive:
        if container.state.running and not container.state.restarting:
            call(context.hooks.started, container)
        if container.state.committing:
            context.spawn(_commit_leftover(context, container), "unpause leftover")
    for container in waiting:
        exits.restart_later(context, container, 0.0)
    for container in was_down:
        if container.host_config.auto_remove and container.started_before:
            context.spawn(_remove_leftover(context, container), "remove leftover")
        elif container.started_before and should_restart(
            container.host_config.restart_policy,
            exit_code=container.state.exit_code,
            restarts=container.restart_count,
            stopped=container.manually_stopped,
        ):
            context.spawn(exits.start_with_daemon(context, container), "start with daemon")
    context.recovered.set()


async def reconcile(context: ContainerContext) -> None:
    """The engine was away and is back."""
    tasks = await _tasks(context)
    await _compare(context, tasks)
    await _forget_unfinished(context)


async def _forget_unfinished(context: ContainerContext) -> None:
    """Removes what starts left in the engine that failed when it went away, and could not be undone without it."""
    known = {record.id for record in await context.engine.containers.list((_mark(context),))} | set(
        await _tasks(context)
    )
    for container in [found for id in known if (found := context.registry.by_id(id)) is not None]:
        if container.state.running:
            continue
        async with container.lock:
            await context.wait_cleaned(container.id)
            if not container.state.running:
                log.info("container=%s is left in the engine by a start that failed and removed", container.id)
                await forget_task(context, container.id)
                await forget_container(context, container.id)


def _mark(context: ContainerContext) -> str:
    """The filter for what this daemon made in the engine."""
    return f'labels."{ROOT_LABEL}"=="{context.settings.root}"'


def _alive(task: ProcessState | None) -> bool:
    return task is not None and task.status in exits.ALIVE


async def _tasks(context: ContainerContext) -> dict[str, ProcessState]:
    return {task.container_id: task for task in await context.engine.tasks.list()}


async def _compare(context: ContainerContext, tasks: dict[str, ProcessState]) -> None:
    running = [c for c in context.registry if c.state.running and not c.state.restarting]
    work = [_one(context, container, tasks.get(container.id)) for container in running]
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            log.error("a container's state could not be recovered: %s", result, exc_info=result)


async def _one(context: ContainerContext, container: Container, task: ProcessState | None) -> None:
    state = container.state
    if _alive(task):
        assert task is not None
        if _differs(container, task):
            async with container.lock:
                # Once more: the list may tell of an earlier run.
                task = await exits.living(context, container)
                if task is not None and state.running and _differs(container, task):
                    state.pid, state.pid_started, state.paused = task.pid, started_time(task.pid), _paused(task)
                    await context.save_state(container)
        return
    if task is not None and task.status is TaskStatus.STOPPED:
        await exits.ended(context, container, Exit(task.pid, task.exit_status, task.exited_at_ns))
    else:
        await exits.ended(context, container, None)


def _paused(task: ProcessState) -> bool:
    return task.status is not TaskStatus.RUNNING


def _differs(container: Container, task: ProcessState) -> bool:
    state = container.state
    # A record of an earlier version has no start time.
    return (state.pid, state.paused) != (task.pid, _paused(task)) or not state.pid_started


async def _commit_leftover(context: ContainerContext, container: Container) -> None:
    """The daemon died while a commit had the container paused."""
    try:
        if container.state.running and container.state.paused:
            await unpause(context, container)
    except WharfError as error:
        log.error("container=%s was paused for a commit and could not go on: %s", container.id, error)


async def _remove_leftover(context: ContainerContext, container: Container) -> None:
    try:
        await remove(context, container, force=True, volumes=True)
    except WharfError as error:
        log.error("container=%s --rm failed: %s", container.id, error)


async def _sweep(context: ContainerContext, tasks: dict[str, ProcessState]) -> None:
    """Takes away what has our label and no running container."""
    mark = _mark(context)
    running = {container.id for container in context.registry if container.state.running}
    for record in await context.engine.containers.list((mark,)):
        if record.id not in running:
            log.info("container=%s is left in the engine by a crash and taken away", record.id)
            if record.id in tasks:
                await forget_task(context, record.id)
            await forget_container(context, record.id)
            if (container := context.registry.by_id(record.id)) is not None:
                await context.networks.stop(container)
                await mounting.tear_down(context, container)
    async for info in context.engine.snapshots.walk((mark,)):
        owner = info.name.partition("-")[0]
        if context.registry.by_id(owner) is None or (owner != info.name and owner not in running):
            log.info("snapshot %s is left by a crash and removed", info.name)
            with contextlib.suppress(WharfError):
                await context.engine.snapshots.remove(info.name)
    # Their stdio has no other end where one beside the engine serves it; builds' are there, too.
    with contextlib.suppress(FileNotFoundError):
        for name in set(os.listdir(f"{context.settings.exec_root}/containers")) - running:
            await context.stdio.discard(name)
    known = {container.id for container in context.registry}
    for name in await asyncio.to_thread(_left_volumes, f"{context.settings.root}/containers", known):
        log.info("volume %s was its container's that a crash has left half made or removed", name)
        await context.volumes.clear(name)
    await asyncio.to_thread(_sweep_directory, f"{context.settings.root}/containers", known)
    await asyncio.to_thread(_sweep_directory, f"{context.settings.exec_root}/containers", running)


def _unknown(directory: str, known: Iterable[str]) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [f"{directory}/{name}" for name in set(names) - set(known)]


def _left_volumes(directory: str, known: Iterable[str]) -> list[str]:
    return [name for path in _unknown(directory, known) for name in left_volumes.noted(path)]


def _sweep_directory(directory: str, known: Iterable[str]) -> None:
    for path in _unknown(directory, known):
        mounts.unmount_under(path)
        shutil.rmtree(path, ignore_errors=True)
