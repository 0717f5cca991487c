"""``docker start``: makes the network, the mounts, the spec and the task; undoes them in reverse order after an error.

A start takes three calls to the engine (create the container, create the task, start it) and one write to the database.
"""

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError, conflict, internal, not_modified
from engine.common.timeline import Timeline, latest
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.logs.plugin import start_logging, stop_logging
from server.containers.model import Container
from server.containers.mounts import mounting, rootfs, snapshot
from server.containers.neighbours import Sandbox
from server.containers.run import checkpoint, devicerequests, gpuwait
from server.containers.run.assemble import PreparedStart, assemble
from server.containers.run.failures import UNKNOWN, StartFailure, is_temporary, start_failure
from server.containers.run.gpuwait import Cancellable
from server.containers.run.process import namespace_of, started_time
from server.containers.run.records import engine_record, remove_engine_record, remove_task
from server.containers.run.remove import remove
from server.containers.run.stop import stop_and_wait
from server.containers.spec.process import DOCKER_APPARMOR
from server.containers.stdio.stdio import stdio_uri
from server.containers.values.modes import check_nameservers, joined

log = logging.getLogger(__name__)


async def start(
    context: ContainerContext,
    container: Container,
    *,
    checkpoint_path: str = "",
    cancellable: Cancellable = nullcontext,
) -> None:
    """Starts a container on request. ``checkpoint_path``: the checkpoint to restore; "": none. ``cancellable``: entered
    while the start waits for GPUs.

    :raises WharfError: NOT_MODIFIED: it runs; CONFLICT: it is paused or being removed; else why the start failed.
    """
    state = container.state
    if state.paused:
        raise conflict("cannot start a paused container, try unpause instead")
    if state.running and not state.restarting:
        raise not_modified("container is already running")
    if state.removing or state.dead:
        raise conflict("container is marked for removal and cannot be started")
    await start_on_request(context, container, checkpoint_path=checkpoint_path, cancellable=cancellable)


async def restart(
    context: ContainerContext,
    container: Container,
    key: str,
    *,
    timeout: int | None = None,
    signal: str = "",
    cancellable: Cancellable = nullcontext,
) -> None:
    """``docker restart``: stops a running container without its automatic removal (``--rm``), and starts it.
    ``timeout``: seconds until SIGKILL. ``key``: the container's name or id in the request. ``cancellable``: see
    ``start``.

    :raises WharfError: ``Cannot restart container x: …``
    """
    try:
        if container.state.running:
            container.manually_restarted = True
            await stop_and_wait(context, container, timeout=timeout, signal=signal)
        await start_on_request(context, container, cancellable=cancellable)
    except WharfError as error:
        container.manually_restarted = False
        kind = error.kind if error.kind in (Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID_ARGUMENT) else Kind.INTERNAL
        raise WharfError(kind, f"Cannot restart container {key}: {error.message}") from error
    context.publish(container, "restart")


async def start_on_request(
    context: ContainerContext,
    container: Container,
    *,
    checkpoint_path: str = "",
    cancellable: Cancellable = nullcontext,
) -> None:
    """Starts a container that doesn't run under its lock, and resets the restart count.

    :raises WharfError: why the start failed. A container with ``--rm`` is removed then.
    """
    timeline = Timeline("start", container.id, container.owner)
    refusal = await gpuwait.wait_on_request(context, container, cancellable)
    timeline.waited("queue", "GPUs")
    async with gpuwait.locked(context, container):
        timeline.waited("lock", "another operation on the container")
        state = container.state
        if state.running:
            if not state.restarting:
                return
            context.restarts_of(container).cancel()  # this start replaces the restart
        failure = await _try_start(
            context, container, refusal, timeline, on_request=True, checkpoint_path=checkpoint_path
        )
    if failure is None:
        return
    if container.host_config.auto_remove:
        await remove(context, container, force=True, volumes=True)
    raise failure.error


async def start_by_policy(context: ContainerContext, container: Container) -> StartFailure | None:
    """Starts a container under its lock for a restart policy. None: it runs, or is being removed.

    A failure leaves the state unchanged ("restarting" with the exit code of the last run): the caller changes it.
    """
    timeline = Timeline("start", container.id, container.owner)
    refusal = await gpuwait.wait_by_policy(context, container)
    timeline.waited("queue", "GPUs")
    async with gpuwait.locked(context, container):
        timeline.waited("lock", "another operation on the container")
        state = container.state
        if state.removing or state.dead or (state.running and not state.restarting):
            return None
        if context.restarts_of(container).cancelled.is_set():
            # A stop held the lock when the delay ended.
            return StartFailure(WharfError(Kind.CANCELLED, "the restart was cancelled"), temporary=False)
        return await _try_start(context, container, refusal, timeline, on_request=False, checkpoint_path="")


async def _try_start(
    context: ContainerContext,
    container: Container,
    refusal: WharfError | None,
    timeline: Timeline,
    *,
    on_request: bool,
    checkpoint_path: str,
) -> StartFailure | None:
    """Starts a container and records the timeline, and the failure if there is one. ``refusal``: why it failed already.
    The caller holds the lock."""
    failure = await _start_or_fail(
        context, container, refusal, timeline, on_request=on_request, checkpoint_path=checkpoint_path
    )
    container.timelines = latest(container.timelines, timeline.done(failure.error if failure is not None else None))
    return failure


async def _start_or_fail(
    context: ContainerContext,
    container: Container,
    refusal: WharfError | None,
    timeline: Timeline,
    *,
    on_request: bool,
    checkpoint_path: str,
) -> StartFailure | None:
    if container.state.removing or container.state.dead:
        error = conflict("container is marked for removal and cannot be started")
        return StartFailure(error, temporary=False)
    if on_request:
        context.restarts_of(container).reset()
        container.restart_count = 0
    await context.wait_cleaned(container.id)
    timeline.waited("cleanup", "the end of the last run's cleanup")
    try:
        if refusal is not None:
            raise refusal
        if context.gpus is not None:
            await context.gpus.claim(container)
        # Around the exit stack, as also an undo step may write to the layer.
        with container.layer.writing():
            async with AsyncExitStack() as undo:
                await _start(context, container, undo, timeline, on_request=on_request, checkpoint_path=checkpoint_path)
                undo.pop_all()
    except WharfError as error:
        return await _record_failure(context, container, error, temporary=is_temporary(error))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{error.filename}: {reason}" if error.filename else reason
        log.error("container=%s start failed: %s", container.id, message)
        return await _record_failure(context, container, WharfError(Kind.INTERNAL, message), temporary=True)
    except Exception as error:
        # Internal error: still release clients waiting for the start.
        log.exception("container=%s start failed", container.id)
        return await _record_failure(context, container, WharfError(Kind.INTERNAL, repr(error)), temporary=False)
    return None


async def _record_failure(
    context: ContainerContext, container: Container, error: WharfError, *, temporary: bool
) -> StartFailure:
    state = container.state
    state.error = error.message
    if not state.restarting:
        state.exit_code = error.exit_code if isinstance(error, _NotStarted) else state.exit_code or UNKNOWN
    # A restarting container keeps the exit code of its last run, as in dockerd: the policy "on-failure" reads it.
    container.before_start.clear()
    call(context.hooks.start_failed, container)
    try:
        await context.save_state(container)
    except WharfError as save_error:
        log.error("container=%s failed start is not recorded: %s", container.id, save_error)
    return StartFailure(error, temporary=temporary)


class _NotStarted(WharfError):
    """The engine could not create or start the task. ``exit_code``: the container's exit code, as in dockerd."""

    def __init__(self, error: WharfError, exit_code: int) -> None:
        super().__init__(error.kind, error.message, reason=error.reason)
        self.exit_code = exit_code


async def _task_error(container: Container, netns_path: str, error: WharfError) -> WharfError:
    """The error of a task that was not started. ``netns_path``: the network namespace that was made for it, or ""."""
    exit_code, failure = start_failure(error)
    if netns_path and not await asyncio.to_thread(os.path.exists, netns_path):
        # Another program has removed the namespace: the container's configuration is not the cause.
        failure = WharfError(Kind.UNAVAILABLE, f"network namespace {netns_path} was removed: {failure.message}")
        log.warning("container=%s %s", container.id, failure.message)
    return _NotStarted(failure, exit_code)


async def _start(
    context: ContainerContext,
    container: Container,
    undo: AsyncExitStack,
    timeline: Timeline,
    *,
    on_request: bool,
    checkpoint_path: str,
) -> None:
    """``undo`` gets the undo steps. The exit stack ``during_start`` removes what only the start needs."""
    state = container.state
    context.expect_move()
    async with AsyncExitStack() as during_start:
        cgroup_parent = ""
        if context.shares is not None:
            # Released after all other steps: then the container counts as running.
            cgroup_parent = await during_start.enter_async_context(context.shares.cgroup(container.owner))
        await context.open_remap(container)
        directory = rootfs.runtime_directory(context, container)
        undo.push_async_callback(mounting.tear_down, context, container)
        undo.push_async_callback(context.networks.stop, container)
        sandbox = await _start_network(context, container)
        if sandbox.joins is not None:
            # The container shares the hostname of the other one, and inspect shows it.
            container.config = replace(container.config, hostname=sandbox.hostname)
        timeline.mark("network")
        binds = await mounting.set_up(context, container, during_start)
        shm = await mounting.shared_memory(context, container)
        await rootfs.mounts_of(context, container)
        remap = context.remap_of(container)
        root = await snapshot.task_rootfs(remap, container.rootfs, f"{directory}/rootfs", during_start)
        timeline.mark("mounts")
        namespaces = during_start.enter_context(ExitStack())
        prepared = PreparedStart(
            network=_network_namespace(sandbox, namespaces),
            network_joined=sandbox.joins is not None,
            mounts=[*binds, *mounting.network_files(container, sandbox.files, remap)],
            shm_path=shm,
            hostname=sandbox.hostname,
            domainname=container.config.domainname,
            link_env=sandbox.link_env,
            cgroup_parent=cgroup_parent,
            namespaces=namespaces,
        )
        if context.facts.apparmor and not container.apparmor_profile:
            container.apparmor_profile = "unconfined" if container.host_config.privileged else DOCKER_APPARMOR
        spec = assemble(context, container, prepared)
        await devicerequests.inject(context, container, spec)
        timeline.mark("spec")
        try:
            context.expect_move()  # again: the network may have taken longer than the first one lasts
            await _create_record(context, container, spec)
            undo.push_async_callback(remove_engine_record, context, container.id)
            timeline.mark("container")
            undo.push_async_callback(stop_logging, context, container)
            undo.push_async_callback(context.stdio.abandoned, container.id)
            with timeline.entered():  # our supervisor returns the phases of its part
                pid = await _create_task(context, container, root, checkpoint_path)
            undo.push_async_callback(remove_task, context, container.id)
            # Before the start: the first request of its processes may come before the answer to the start.
            container.starting = pid, started_time(pid) if pid else 0
            undo.callback(_forget_start, container)
            timeline.mark("task")
            waiting, container.before_start = container.before_start, []
            container.joinable = True
            for join in waiting:
                await join()
            # Read before the start, so that StartedAt precedes FinishedAt also if the container exits at once.
            started_ns = time.time_ns()
            # The task of a restored container has a pid only after the start.
            pid = await context.engine.tasks.start(container.id) or pid
            pid_started = container.starting[1] if pid == container.starting[0] else started_time(pid)
            await context.stdio.started(container.id)
            timeline.mark("start")
        except WharfError as error:
            netns_path = sandbox.netns_path if sandbox.joins is None else None
            raise await _task_error(container, netns_path or "", error) from error
    state.running, state.paused, state.restarting = True, False, False
    state.pid, state.exit_code, state.error, state.oom_killed = pid, 0, "", False
    state.pid_started = pid_started
    _forget_start(container)
    state.started_ns = started_ns
    container.started_before = True
    container.manually_restarted = False
    if on_request:
        container.manually_stopped = False
    call(context.hooks.started, container)
    await context.save_state(container)
    timeline.mark("save")
    context.publish(container, "start")


async def _start_network(context: ContainerContext, container: Container) -> Sandbox:
    check_nameservers(container.host_config.dns or ())
    try:
        return await context.networks.start(container)
    except WharfError as error:
        if joined(container.host_config.network_mode) is None:
            raise WharfError(error.kind, f"failed to set up container networking: {error.message}") from error
        if error.kind is Kind.NOT_FOUND:
            raise internal(f"joining network namespace of container: {error.message}") from error
        raise


def _network_namespace(sandbox: Sandbox, descriptors: ExitStack) -> str:
    if sandbox.of_process is None:
        return sandbox.netns_path or "host"
    try:
        return namespace_of(sandbox.of_process, "net", descriptors)
    except ProcessLookupError:
        raise conflict(f"cannot join network of a non running container: {sandbox.joins}") from None


def _forget_start(container: Container) -> None:
    container.joinable, container.starting = False, (0, 0)


async def _create_record(context: ContainerContext, container: Container, spec: dict[str, object]) -> None:
    record = engine_record(context, container, spec, snapshot_key=container.id)
    try:
        await context.engine.containers.create(record)
    except WharfError as error:
        if error.kind is not Kind.ALREADY_EXISTS:
            raise
        # A crash has left it. It has no running process, or recovery would have adopted it.
        await remove_task(context, container.id)
        await remove_engine_record(context, container.id)
        await context.engine.containers.create(record)


async def _create_task(
    context: ContainerContext, container: Container, root: tuple[Mount, ...], checkpoint_path: str
) -> int:
    """Creates the task and returns its pid, 0 for a restored one."""
    terminal = container.config.tty
    try:
        await start_logging(context, container)
        stdio = await context.stdio.open(container.id, "", stdio_uri(context, container), terminal=terminal)
        create = partial(
            context.engine.tasks.create,
            container.id,
            rootfs=root,
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            terminal=terminal,
            runtime_options=checkpoint.runtime_options(context, container, checkpoint_path),
        )
        try:
            return await create()
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
        # The engine died during an earlier create and completed it after its restart.
        await remove_task(context, container.id)
        return await create()
    except WharfError as error:
        raise error.worded(f"failed to create task for container: {error.message}") from error
