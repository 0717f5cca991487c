"""``docker start``: network, mounts, spec, task; undone in reverse if anything fails.

Three calls to the engine (container, task, start) and one commit.
"""

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial

from engine.api.types import ContainerRecord, Mount
from engine.common.errors import Kind, WharfError, conflict, internal, not_modified
from engine.common.timeline import Timeline
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.hooks import call
from server.containers.logs.plugin import start_logging, stop_logging
from server.containers.model import Container
from server.containers.mounts import mounting, rootfs, snapshot
from server.containers.neighbours import Sandbox
from server.containers.plan import ContainerPlan
from server.containers.run import checkpoint, devicerequests
from server.containers.run.assemble import Surroundings, assemble
from server.containers.run.failures import UNKNOWN, StartFailure, is_temporary, start_failure
from server.containers.run.process import namespace_of, started_time
from server.containers.run.remove import remove
from server.containers.run.stop import stop_and_wait
from server.containers.spec.process import DOCKER_APPARMOR
from server.containers.stdio.stdio import stdio_uri, task_owner
from server.containers.values.modes import check_nameservers, joined
from server.registry.reference import Reference, parse_any

log = logging.getLogger(__name__)


async def start(context: ContainerContext, container: Container, *, image: str = "") -> None:
    """Starts a container on request; with ``image``, the directory of a checkpoint, it goes on from there.

    :raises WharfError: NOT_MODIFIED if it runs; CONFLICT if paused or being removed; else why it failed.
    """
    state = container.state
    if state.paused:
        raise conflict("cannot start a paused container, try unpause instead")
    if state.running and not state.restarting:
        raise not_modified("container is already running")
    if state.removing or state.dead:
        raise conflict("container is marked for removal and cannot be started")
    await start_on_request(context, container, image=image)


async def restart(
    context: ContainerContext, container: Container, key: str, *, timeout: int | None = None, signal: str = ""
) -> None:
    """Stops, if it runs, and starts. ``--rm`` does not take it away in between.

    :raises WharfError: ``Cannot restart container x: …``
    """
    try:
        if container.state.running:
            container.manually_restarted = True
            await stop_and_wait(context, container, timeout=timeout, signal=signal)
        await start_on_request(context, container)
    except WharfError as error:
        container.manually_restarted = False
        kind = error.kind if error.kind in (Kind.NOT_FOUND, Kind.CONFLICT, Kind.INVALID_ARGUMENT) else Kind.INTERNAL
        raise WharfError(kind, f"Cannot restart container {key}: {error.message}") from error
    context.publish(container, "restart")


async def start_on_request(context: ContainerContext, container: Container, *, image: str = "") -> None:
    """Starts under the container's lock; restart counting begins anew.

    :raises WharfError: why it failed; a container with ``--rm`` is removed then.
    """
    async with container.lock:
        state = container.state
        if state.running:
            if not state.restarting:
                return
            # It waits for its next restart: that wait is over.
            context.restarts_of(container).cancel()
        failure = await _try(context, container, on_request=True, image=image)
    if failure is None:
        return
    if container.host_config.auto_remove:
        await remove(context, container, force=True, volumes=True)
    raise failure.error


async def start_by_policy(context: ContainerContext, container: Container) -> StartFailure | None:
    """Starts under the container's lock for a restart policy; None: it runs, or nothing wants it to run any more.

    A failure leaves the state as it is ("restarting" with the exit code of its last run), for the caller to decide.
    """
    async with container.lock:
        state = container.state
        if state.removing or state.dead or (state.running and not state.restarting):
            return None
        if context.restarts_of(container).cancelled.is_set():
            # A stop came between the end of the delay and the lock.
            return StartFailure(WharfError(Kind.CANCELLED, "the restart was cancelled"), temporary=False)
        return await _try(context, container, on_request=False, image="")


async def _try(context: ContainerContext, container: Container, *, on_request: bool, image: str) -> StartFailure | None:
    if container.state.removing or container.state.dead:
        error = conflict("container is marked for removal and cannot be started")
        return StartFailure(error, temporary=False)
    if on_request:
        context.restarts_of(container).reset()
        container.restart_count = 0
    timeline = Timeline("start")
    await context.wait_cleaned(container.id)
    try:
        # Also what undoes a start that failed may write.
        with container.layer.writing():
            async with AsyncExitStack() as undo:
                await _start(context, container, undo, timeline, on_request=on_request, image=image)
                undo.pop_all()
    except WharfError as error:
        return await _failed(context, container, error, temporary=is_temporary(error))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{error.filename}: {reason}" if error.filename else reason
        log.error("container=%s start failed: %s", container.id, message)
        return await _failed(context, container, WharfError(Kind.INTERNAL, message), temporary=True)
    except Exception as error:
        # Internal error: still release clients waiting for the start.
        log.exception("container=%s start failed", container.id)
        return await _failed(context, container, WharfError(Kind.INTERNAL, repr(error)), temporary=False)
    timeline.done()
    return None


async def _failed(
    context: ContainerContext, container: Container, error: WharfError, *, temporary: bool
) -> StartFailure:
    state = container.state
    state.error = error.message
    if not state.restarting:
        state.exit_code = error.exit_code if isinstance(error, _NotStarted) else state.exit_code or UNKNOWN
    # Else the exit code of its last run stays, as in dockerd: an "on-failure" policy asks for it.
    container.before_start.clear()
    call(context.hooks.start_failed, container)
    try:
        await context.save_state(container)
    except WharfError as save_error:
        log.error("container=%s failed start is not recorded: %s", container.id, save_error)
    return StartFailure(error, temporary=temporary)


class _NotStarted(WharfError):
    """The engine refused the task; ``exit_code`` is what dockerd gives the container for that."""

    def __init__(self, error: WharfError, exit_code: int) -> None:
        super().__init__(error.kind, error.message, reason=error.reason)
        self.exit_code = exit_code


async def _refused(container: Container, path: str, error: WharfError) -> WharfError:
    """The error of a task that was not started. ``path``: the network namespace that was made for it, or ""."""
    exit_code, failure = start_failure(error)
    if path and not await asyncio.to_thread(os.path.exists, path):
        # Not what the container's configuration asked for: somebody removed it during the start.
        failure = WharfError(Kind.UNAVAILABLE, f"network namespace {path} was removed: {failure.message}")
        log.warning("container=%s %s", container.id, failure.message)
    return _NotStarted(failure, exit_code)


async def _start(
    context: ContainerContext,
    container: Container,
    undo: AsyncExitStack,
    timeline: Timeline,
    *,
    on_request: bool,
    image: str,
) -> None:
    state = container.state
    async with AsyncExitStack() as brief:
        undo.push_async_callback(mounting.tear_down, context, container)
        # Before the network, so that what is wrong with the mounts costs nothing; its teardown comes first.
        undo.push_async_callback(context.networks.stop, container)
        sandbox = await _networking(context, container)
        if sandbox.joins is not None:
            # It has no name of its own: Docker shows the other's.
            container.config = replace(container.config, hostname=sandbox.hostname)
        timeline.mark("network")
        binds = await mounting.set_up(context, container, brief)
        shm = await mounting.shared_memory(context, container)
        await rootfs.mounts_of(context, container)
        remap = context.remap_of(container)
        place = f"{context.settings.exec_root}/containers/{container.id}/rootfs"
        root = await snapshot.task_rootfs(remap, container.rootfs, place, brief)
        timeline.mark("mounts")
        held = brief.enter_context(ExitStack())
        around = Surroundings(
            network=_network(sandbox, held),
            network_joined=sandbox.joins is not None,
            mounts=[*binds, *mounting.network_files(container, sandbox.files, remap)],
            shm_path=shm,
            hostname=sandbox.hostname,
            domainname=container.config.domainname,
            link_env=sandbox.link_env,
            held=held,
        )
        if context.facts.apparmor and not container.apparmor_profile:
            container.apparmor_profile = "unconfined" if container.host_config.privileged else DOCKER_APPARMOR
        spec = assemble(context, container, around)
        await devicerequests.inject(context, container.host_config, spec)
        timeline.mark("spec")
        try:
            await _create_record(context, container, spec)
            undo.push_async_callback(forget_container, context, container.id)
            timeline.mark("container")
            undo.push_async_callback(stop_logging, context, container)
            undo.push_async_callback(context.stdio.abandoned, container.id)
            pid = await _create_task(context, container, root, image)
            undo.push_async_callback(forget_task, context, container.id)
            timeline.mark("task")
            waiting, container.before_start = container.before_start, []
            container.joinable = True
            undo.callback(_joinable_no_more, container)
            for join in waiting:
                await join()
            # Taken before, so that a container that ends at once has not ended before it began.
            began = time.time_ns()
            # What is restored has no process before.
            pid = await context.engine.tasks.start(container.id) or pid
            await context.stdio.started(container.id)
            timeline.mark("start")
        except WharfError as error:
            made = sandbox.netns_path if sandbox.joins is None else None
            raise await _refused(container, made or "", error) from error
    state.running, state.paused, state.restarting = True, False, False
    container.joinable = False
    state.pid, state.exit_code, state.error, state.oom_killed = pid, 0, "", False
    state.pid_started = started_time(pid)
    state.started_ns = began
    container.started_before = True
    container.manually_restarted = False
    if on_request:
        container.manually_stopped = False
    call(context.hooks.started, container)
    await context.save_state(container)
    timeline.mark("save")
    context.publish(container, "start")


async def _networking(context: ContainerContext, container: Container) -> Sandbox:
    check_nameservers(container.host_config.dns or ())
    try:
        sandbox: Sandbox = await context.networks.start(container)
        return sandbox
    except WharfError as error:
        if joined(container.host_config.network_mode) is None:
            raise WharfError(error.kind, f"failed to set up container networking: {error.message}") from error
        if error.kind is Kind.NOT_FOUND:
            raise internal(f"joining network namespace of container: {error.message}") from error
        raise


def _network(sandbox: Sandbox, held: ExitStack) -> str:
    if sandbox.of_process is None:
        return sandbox.netns_path or "host"
    try:
        return namespace_of(sandbox.of_process, "net", held)
    except ProcessLookupError:
        raise conflict(f"cannot join network of a non running container: {sandbox.joins}") from None


def _joinable_no_more(container: Container) -> None:
    container.joinable = False


def engine_record(
    context: ContainerContext, container: ContainerPlan, spec: dict[str, object], *, snapshot_key: str
) -> ContainerRecord:
    """What the engine keeps of a container that is about to run.

    :raises WharfError: INVALID_ARGUMENT: its runtime can't be used.
    """
    runtime_name, options = context.runtimes.engine_options(
        container.host_config.runtime, owner=task_owner(context, container)
    )
    return ContainerRecord(
        id=container.id,
        image=_image_name(container),
        # A daemon that was killed finds it by this, and takes it away.
        labels={ROOT_LABEL: context.settings.root},
        runtime_name=runtime_name,
        runtime_options=options,
        spec=spec,
        snapshotter=context.engine.snapshots.snapshotter,
        snapshot_key=snapshot_key,
    )


def _image_name(container: ContainerPlan) -> str:
    """What the engine's own tools show as its image: the whole name, if it was asked for by one."""
    asked = container.config.image or ""
    if container.image_id.removeprefix("sha256:").startswith(asked.removeprefix("sha256:")):
        return ""
    try:
        found = parse_any(asked)
    except WharfError:
        return ""
    return str(found.tagged()) if isinstance(found, Reference) else ""


async def _create_record(context: ContainerContext, container: Container, spec: dict[str, object]) -> None:
    record = engine_record(context, container, spec, snapshot_key=container.id)
    try:
        await context.engine.containers.create(record)
    except WharfError as error:
        if error.kind is not Kind.ALREADY_EXISTS:
            raise
        # Left by a crash: nobody runs in it, or recover would know.
        await forget_task(context, container.id)
        await forget_container(context, container.id)
        await context.engine.containers.create(record)


async def _create_task(context: ContainerContext, container: Container, root: tuple[Mount, ...], image: str) -> int:
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
            runtime_options=checkpoint.options(context, container, image),
        )
        try:
            return await create()
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
        # The engine died in the middle of an earlier create, and finished it when it came back.
        await forget_task(context, container.id)
        return await create()
    except WharfError as error:
        raise error.worded(f"failed to create task for container: {error.message}") from error


async def forget_task(context: ContainerContext, container_id: str) -> None:
    """Kills and deletes a task; one that isn't there is no error."""
    try:
        await context.engine.tasks.kill(container_id, 9, everything=True)
        await context.engine.tasks.wait(container_id)
    except WharfError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.FAILED_PRECONDITION):
            log.warning("container=%s task could not be killed: %s", container_id, error)
    try:
        await context.engine.tasks.delete(container_id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s task could not be deleted: %s", container_id, error)


async def forget_container(context: ContainerContext, container_id: str) -> None:
    """Deletes the engine's record of a container; one that isn't there is no error."""
    try:
        await context.engine.containers.delete(container_id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s could not be deleted in the engine: %s", container_id, error)
