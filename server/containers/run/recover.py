"""Recovery: compares the records with the engine's tasks, at the daemon's start and after a lost connection.

At the daemon's start, recovery first adopts or removes what the last daemon left, then handles exits. Until then no
container is started (``ContainerContext.recovered``), as recovery decides by lists that a start would make stale.

A container that has exited meanwhile is handled as after an exit event. Containers, snapshots and directories without a
record (a crash during create, start or remove) are removed; in the engine only those with our label, as the engine may
have other clients.
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
from server.containers.mounts import mounting, orphan_volumes
from server.containers.restarts import should_restart
from server.containers.run import exits
from server.containers.run.process import started_time
from server.containers.run.records import remove_engine_record, remove_task
from server.containers.run.stop import unpause

log = logging.getLogger(__name__)


async def load(context: ContainerContext) -> None:
    """Reads all records into the registry, and registers their volumes' references and users."""
    for container in await context.store.load():
        context.registry.add(container)
        await context.owner_remaps.prepare(container.owner)
        for point in container.mounts.values():
            if point.kind == "volume":
                context.volumes.refer(point.name, container.id)
                if container.state.running and not container.state.restarting:
                    context.volumes.adopt(point.name, mounting.user_of(container, point))


async def recover(context: ContainerContext) -> None:
    """Recovers at the daemon's start. The monitor has subscribed to the events, and the networks are loaded.

    :raises WharfError: the engine doesn't answer.
    """
    tasks = await _tasks(context)
    for container in context.registry:
        if container.state.restarting and tasks.pop(container.id, None) is not None:
            # The last daemon died during a restart: undo it, as there is no record of it.
            await remove_task(context, container.id)
            await remove_engine_record(context, container.id)
    running = [c for c in context.registry if c.state.running and not c.state.restarting]
    alive = [c for c in running if _alive(tasks.get(c.id))]
    waiting = [c for c in context.registry if c.state.restarting]
    stopped = [c for c in context.registry if not c.state.running]
    # Includes containers that have exited meanwhile: on_exit releases their networks.
    await context.networks.recover(running)
    await _sweep(context, tasks)
    await context.volumes.sweep()
    await _compare(context, tasks)
    for container in alive:
        if container.state.running and not container.state.restarting:
            call(context.hooks.started, container)
        if container.state.committing:
            context.spawn(_unpause_after_commit(context, container), "unpause after commit")
    for container in waiting:
        if context.config.restart:
            exits.restart_later(context, container, 0.0)
        else:
            await exits.end_restart(context, container)
    for container in stopped:
        if container.host_config.auto_remove and container.started_before:
            context.spawn(exits.remove_automatically(context, container), "remove automatically")
        elif (
            context.config.restart
            and container.started_before
            and should_restart(
                container.host_config.restart_policy,
                exit_code=container.state.exit_code,
                restarts=container.restart_count,
                stopped=container.manually_stopped,
            )
        ):
            context.spawn(exits.start_with_daemon(context, container), "start with daemon")
    context.recovered.set()


async def reconcile(context: ContainerContext) -> None:
    """Compares the records with the engine's tasks after a lost connection.

    :raises WharfError: the engine doesn't answer.
    """
    tasks = await _tasks(context)
    await _compare(context, tasks)
    await _remove_unfinished(context)


async def _remove_unfinished(context: ContainerContext) -> None:
    """Removes containers and tasks of failed starts, which could not be removed while the connection was lost."""
    known = {record.id for record in await context.engine.containers.list((_label_filter(context),))} | set(
        await _tasks(context)
    )
    for container in [found for id in known if (found := context.registry.by_id(id)) is not None]:
        if container.state.running:
            continue
        async with container.lock:
            await context.wait_cleaned(container.id)
            if not container.state.running:
                log.info("container=%s is removed from the engine after a failed start", container.id)
                await remove_task(context, container.id)
                await remove_engine_record(context, container.id)


def _label_filter(context: ContainerContext) -> str:
    """The filter for containers and snapshots that this daemon made in the engine."""
    return f'labels."{ROOT_LABEL}"=="{context.config.data_root}"'


def _alive(task: ProcessState | None) -> bool:
    return task is not None and task.status in exits.ALIVE


async def _tasks(context: ContainerContext) -> dict[str, ProcessState]:
    return {task.container_id: task for task in await context.engine.tasks.list()}


async def _compare(context: ContainerContext, tasks: dict[str, ProcessState]) -> None:
    running = [c for c in context.registry if c.state.running and not c.state.restarting]
    work = [_compare_one(context, container, tasks.get(container.id)) for container in running]
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            log.error("a container's state could not be recovered: %s", result, exc_info=result)


async def _compare_one(context: ContainerContext, container: Container, task: ProcessState | None) -> None:
    state = container.state
    if _alive(task):
        assert task is not None
        if _differs(container, task):
            async with container.lock:
                # Ask again under the lock: the list may have the task of an earlier run.
                task = await exits.find_task(context, container)
                if task is not None and state.running and _differs(container, task):
                    state.pid, state.pid_started, state.paused = task.pid, started_time(task.pid), _paused(task)
                    await context.save_state(container)
        return
    if task is not None and task.status is TaskStatus.STOPPED:
        await exits.on_exit(context, container, Exit(task.pid, task.exit_status, task.exited_at_ns))
    else:
        await exits.on_exit(context, container, None)


def _paused(task: ProcessState) -> bool:
    return task.status is not TaskStatus.RUNNING


def _differs(container: Container, task: ProcessState) -> bool:
    state = container.state
    # Records of earlier versions have no pid_started.
    return (state.pid, state.paused) != (task.pid, _paused(task)) or not state.pid_started


async def _unpause_after_commit(context: ContainerContext, container: Container) -> None:
    """Resumes a container that a commit had paused when the last daemon died."""
    try:
        if container.state.running and container.state.paused:
            await unpause(context, container)
    except WharfError as error:
        log.error("container=%s was paused for a commit and could not be resumed: %s", container.id, error)


async def _sweep(context: ContainerContext, tasks: dict[str, ProcessState]) -> None:
    """Removes what the last daemon left: containers, snapshots, volumes and directories without a running container or
    a record."""
    label = _label_filter(context)
    running = {container.id for container in context.registry if container.state.running}
    for record in await context.engine.containers.list((label,)):
        if record.id not in running:
            log.info("container=%s is removed from the engine: a crash has left it", record.id)
            if record.id in tasks:
                await remove_task(context, record.id)
            await remove_engine_record(context, record.id)
            if (container := context.registry.by_id(record.id)) is not None:
                await context.networks.stop(container)
                await mounting.tear_down(context, container)
    async for info in context.engine.snapshots.walk((label,)):
        # <container> is the container's own; <container>-<purpose> serves it while it runs.
        owner = info.name.partition("-")[0]
        if context.registry.by_id(owner) is None or (owner != info.name and owner not in running):
            log.info("snapshot %s is removed: a crash has left it", info.name)
            with contextlib.suppress(WharfError):
                await context.engine.snapshots.remove(info.name)
    # Ends I/O hosts without a container, also those of builds.
    with contextlib.suppress(FileNotFoundError):
        for name in set(os.listdir(f"{context.config.exec_root}/containers")) - running:
            await context.stdio.discard(name)
    known = {container.id for container in context.registry}
    for name in await asyncio.to_thread(_orphan_volumes, f"{context.config.data_root}/containers", known):
        log.info("volume %s is removed: a crash has left it without its container", name)
        await context.volumes.clear(name)
    await asyncio.to_thread(_sweep_directory, f"{context.config.data_root}/containers", known)
    await asyncio.to_thread(_sweep_directory, f"{context.config.exec_root}/containers", running)


def _unknown(directory: str, known: Iterable[str]) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [f"{directory}/{name}" for name in set(names) - set(known)]


def _orphan_volumes(directory: str, known: Iterable[str]) -> list[str]:
    return [name for path in _unknown(directory, known) for name in orphan_volumes.read(path)]


def _sweep_directory(directory: str, known: Iterable[str]) -> None:
    for path in _unknown(directory, known):
        mounts.unmount_under(path)
        shutil.rmtree(path, ignore_errors=True)
