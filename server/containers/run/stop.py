"""Signals to containers: ``stop``, ``kill``, ``pause`` and ``unpause``."""

import asyncio
import logging

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, conflict, internal, invalid, not_modified
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.model import Container
from server.containers.values import signals
from server.containers.waiters import Condition, Waiter

log = logging.getLogger(__name__)

timeouts.define("container.kill", 10.0)  # from SIGKILL to the exit event
timeouts.define("container.unsignalled", 2.0)  # for an exit although the stop signal could not be sent


def not_running(container: Container) -> WharfError:
    """dockerd's error for an operation that needs a running container."""
    return conflict(f"container {container.id} is not running")


def is_restarting(container: Container) -> WharfError:
    """dockerd's error for an operation that a restarting container can't have."""
    return conflict(f"Container {container.id} is restarting, wait until the container is running")


def stop_signal(container: Container) -> int:
    """The number of the signal of ``docker stop``: the configured one, or SIGTERM."""
    return signals.parse(container.config.stop_signal) if container.config.stop_signal else signals.SIGTERM


def stop_timeout(context: ContainerContext, container: Container) -> int:
    """The seconds from the stop signal to SIGKILL; -1: no SIGKILL."""
    configured = container.config.stop_timeout
    return context.config.default_stop_timeout if configured is None else configured


async def stop(
    context: ContainerContext, container: Container, key: str, *, timeout: int | None = None, signal: str = ""
) -> None:
    """``docker stop``. ``timeout``: seconds until SIGKILL, None: the container's. ``key``: the container's name or id
    in the request.

    :raises WharfError: NOT_MODIFIED: it doesn't run; INTERNAL, as in dockerd: it can't be stopped.
    """
    if await _end_wait(context, container):
        return
    await wait_started(container)
    if not container.state.running:
        raise not_modified("container is already stopped")
    try:
        await stop_and_wait(context, container, timeout=timeout, signal=signal)
    except WharfError as error:
        raise internal(f"cannot stop container: {key}: {error.message}") from error


async def _end_wait(context: ContainerContext, container: Container) -> bool:
    """Ends the wait for GPUs of a container that doesn't run; False: it doesn't wait."""
    if context.gpus is None or container.state.running or not context.gpus.cancel(container):
        return False
    async with container.lock:
        container.manually_stopped = True
        await context.save_state(container)
    return True


async def wait_started(container: Container) -> None:
    """Waits for a start in progress, as dockerd does, so that a stop during the start stops the started container.

    Else `docker compose up --abort-on-container-exit` can wait for ever: it stops containers while it starts them.
    """
    if not container.state.running and container.lock.locked():
        async with container.lock:
            pass


async def stop_and_wait(
    context: ContainerContext, container: Container, *, timeout: int | None = None, signal: str = ""
) -> None:
    """Sends the stop signal, waits ``timeout`` seconds for the exit, then kills the container; publishes ``stop``.

    :raises WharfError: INVALID_ARGUMENT: a bad ``signal``; INTERNAL: SIGKILL had no effect.
    """
    if not container.state.running:
        return
    number = signals.parse(signal) if signal else stop_signal(container)
    seconds = stop_timeout(context, container) if timeout is None else timeout
    grace: float | None = None if seconds < 0 else float(seconds)
    ended = context.waiters.register(container, Condition.NOT_RUNNING)
    try:
        await send(context, container, number)
    except WharfError as error:
        log.warning("container=%s stop signal %d: %s", container.id, number, error)
        grace = timeouts.seconds("container.unsignalled")
    # Check the state again: the container may have exited as the timeout ended.
    if not await _done(ended, grace) and container.state.running:
        # With a timeout of 0 the SIGKILL is what the client has requested.
        level = logging.INFO if grace else logging.DEBUG
        log.log(level, "container=%s did not exit within %s s of signal %d and is killed", container.id, grace, number)
        await kill_and_wait(context, container)
    context.publish(container, "stop")


async def _done(waiter: Waiter, seconds: float | None) -> bool:
    """Whether the waiter completes within ``seconds`` (None: no bound); cancels it if not."""
    done, _ = await asyncio.wait({waiter}, timeout=seconds)
    if not done:
        waiter.cancel()
    return bool(done)


async def kill(context: ContainerContext, container: Container, signal: str = "") -> None:
    """``docker kill``. Waits for the exit after SIGKILL, not after other signals.

    :raises WharfError: CONFLICT: the container doesn't run; INVALID_ARGUMENT: a bad signal.
    """
    number = parse_kill_signal(signal)
    # `docker run` sends the signal of Ctrl-C to a container that has not started yet.
    if number in signals.TERMINATING and await _end_wait(context, container):
        return
    await wait_started(container)
    if number == signals.SIGKILL:
        await kill_and_wait(context, container)
    else:
        await send(context, container, number)


def parse_kill_signal(signal: str) -> int:
    """The number of the signal of ``docker kill``; "" is SIGKILL.

    :raises WharfError: INVALID_ARGUMENT: no such signal.
    """
    if not signal:
        return signals.SIGKILL
    number = signals.parse(signal)
    if not signals.known(number):
        raise invalid(f"the linux daemon does not support signal {number}")
    return number


async def kill_and_wait(context: ContainerContext, container: Container) -> None:
    """Sends SIGKILL and waits for the exit.

    :raises WharfError: CONFLICT: the container doesn't run; INTERNAL: no exit event within the deadline.
    """
    if not container.state.running:
        raise not_running(container)
    ended = context.waiters.register(container, Condition.NOT_RUNNING)
    try:
        await send(context, container, signals.SIGKILL)
    except WharfError as error:
        if error.kind is not Kind.CONFLICT:
            ended.cancel()
            raise
    if not await _done(ended, timeouts.seconds("container.kill")):
        raise internal("tried to kill container, but did not receive an exit event")


async def send(context: ContainerContext, container: Container, number: int) -> None:
    """Sends a signal on request: restart policies treat the container as stopped by a client. The container's stop
    signal and SIGKILL also cancel its restarts.

    :raises WharfError: CONFLICT: the container doesn't run; else the engine's error.
    """
    async with container.lock:
        state = container.state
        if not state.running:
            raise not_running(container)
        configured = container.config.stop_signal
        stops = not configured or number == signals.SIGKILL or number == signals.parse(configured)
        if stops:
            context.restarts_of(container).cancel()
        if not context.shutting_down and not container.manually_stopped:
            container.manually_stopped = True
            await context.save_state(container)
        if state.restarting:
            return  # there is no process
        try:
            await context.engine.tasks.kill(container.id, number)
            if stops and state.paused:
                await _thaw(context, container)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise WharfError(error.kind, f"Cannot kill container {container.id}: {error.message}") from error
            # It has exited. The exit event may be lost.
            context.check_exit(container)
        context.publish(container, "kill", {"signal": str(number)})


async def _thaw(context: ContainerContext, container: Container) -> None:
    """Resumes a paused container, whose processes get the signal only then. An error is logged: the container may have
    exited, or been resumed by an earlier signal, before the event was handled."""
    try:
        await context.engine.tasks.resume(container.id)
    except WharfError as error:
        log.info("container=%s is signalled, but not resumed: %s", container.id, error)


async def pause(context: ContainerContext, container: Container, *, committing: bool = False) -> None:
    """Pauses a container. ``committing``: saves the state first, so that the next daemon resumes the container if this
    one dies.

    :raises WharfError: CONFLICT: it doesn't run, is paused, or waits for its restart; INTERNAL: the engine's error.
    """
    async with container.lock:
        state = container.state
        if not state.running:
            raise not_running(container)
        if state.paused:
            raise conflict(f"Container {container.id} is already paused")
        if state.restarting:
            raise is_restarting(container)
        state.committing = committing
        if committing:
            await context.save_state(container)
        try:
            await context.engine.tasks.pause(container.id)
        except WharfError as error:
            raise internal(f"cannot pause container {container.id}: {error.message}") from error
        state.paused = True
        call(context.hooks.paused, container)
        context.publish(container, "pause")
        await context.save_state(container)


async def pause_to_commit(context: ContainerContext, container: Container) -> bool:
    """Pauses a running container for a commit; False: it has exited meanwhile, so that a commit needs no pause.

    :raises WharfError: as ``pause``.
    """
    ended = context.waiters.register(container, Condition.NOT_RUNNING)
    try:
        await pause(context, container, committing=True)
    except WharfError:
        if not await _done(ended, timeouts.seconds("container.unsignalled")):
            raise
        container.state.committing = False
        return False
    ended.cancel()
    return True


async def unpause(context: ContainerContext, container: Container) -> None:
    """Resumes a paused container.

    :raises WharfError: INTERNAL, as in dockerd: it isn't paused, or the engine's error; CONFLICT: it doesn't run.
    """
    async with container.lock:
        state = container.state
        if not state.paused:
            raise internal(f"Container {container.id} is not paused")
        if not state.running:
            raise not_running(container)
        try:
            await context.engine.tasks.resume(container.id)
        except WharfError as error:
            raise internal(f"Cannot unpause container {container.id}: {error.message}") from error
        state.paused = state.committing = False
        call(context.hooks.unpaused, container)
        context.publish(container, "unpause")
        await context.save_state(container)
