"""Ending containers: signals, ``stop`` with its grace period, ``kill``; and ``pause``, ``unpause``."""

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

DEFAULT_TIMEOUT = 10
timeouts.define("container.kill", 10.0)  # from SIGKILL to the exit event
timeouts.define("container.unsignalled", 2.0)  # a container whose stop signal could not be sent may end all the same


def not_running(container: Container) -> WharfError:
    return conflict(f"container {container.id} is not running")


def is_restarting(container: Container) -> WharfError:
    return conflict(f"Container {container.id} is restarting, wait until the container is running")


def stop_signal(container: Container) -> int:
    """The signal of ``docker stop``: the configured one, or SIGTERM."""
    return signals.parse(container.config.stop_signal) if container.config.stop_signal else signals.SIGTERM


def stop_timeout(container: Container) -> int:
    """Seconds until a stop becomes a kill; -1 never."""
    configured = container.config.stop_timeout
    return DEFAULT_TIMEOUT if configured is None else configured


async def stop(
    context: ContainerContext, container: Container, key: str, *, timeout: int | None = None, signal: str = ""
) -> None:
    """Stops on request. ``key``: how the client calls it.

    :raises WharfError: NOT_MODIFIED if it doesn't run; INTERNAL (as in dockerd) if it can't be stopped.
    """
    await wait_started(container)
    if not container.state.running:
        raise not_modified("container is already stopped")
    try:
        await stop_and_wait(context, container, timeout=timeout, signal=signal)
    except WharfError as error:
        raise internal(f"cannot stop container: {key}: {error.message}") from error


async def wait_started(container: Container) -> None:
    """Waits for a start that is going on, as dockerd does: who asks for the end in that moment means what it starts.

    `docker compose up --abort-on-container-exit` waits for ever for a container that it started while it stopped it.
    """
    if not container.state.running and container.lock.locked():
        async with container.lock:
            pass


async def stop_and_wait(
    context: ContainerContext, container: Container, *, timeout: int | None = None, signal: str = ""
) -> None:
    """Sends the stop signal, waits, kills; a ``stop`` event at the end. Goes on if the client leaves."""
    if not container.state.running:
        return
    number = signals.parse(signal) if signal else stop_signal(container)
    seconds = stop_timeout(container) if timeout is None else timeout
    grace: float | None = None if seconds < 0 else float(seconds)
    ended = context.waiters.register(container, Condition.NOT_RUNNING)
    try:
        await send(context, container, number)
    except WharfError as error:
        log.warning("container=%s stop signal %d: %s", container.id, number, error)
        grace = timeouts.seconds("container.unsignalled")
    # It may have ended in the very moment in which the time was up.
    if not await _ended(ended, grace) and container.state.running:
        # A stop without grace is a kill on request.
        level = logging.INFO if grace else logging.DEBUG
        log.log(level, "container=%s did not end within %s s of signal %d and is killed", container.id, grace, number)
        await kill_and_wait(context, container)
    context.publish(container, "stop")


async def _ended(waiter: Waiter, seconds: float | None) -> bool:
    done, _ = await asyncio.wait({waiter}, timeout=seconds)
    if not done:
        waiter.cancel()
    return bool(done)


async def kill(context: ContainerContext, container: Container, signal: str = "") -> None:
    """``docker kill``: SIGKILL waits for the end, any other signal is only sent.

    :raises WharfError: CONFLICT if it doesn't run; INVALID_ARGUMENT for a bad signal.
    """
    number = parse_kill_signal(signal)
    await wait_started(container)
    if number == signals.SIGKILL:
        await kill_and_wait(context, container)
    else:
        await send(context, container, number)


def parse_kill_signal(signal: str) -> int:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not signal:
        return signals.SIGKILL
    number = signals.parse(signal)
    if not signals.known(number):
        raise invalid(f"the linux daemon does not support signal {number}")
    return number


async def kill_and_wait(context: ContainerContext, container: Container) -> None:
    """SIGKILL, and the wait for the exit.

    :raises WharfError: CONFLICT if it doesn't run; INTERNAL if it survives.
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
    if not await _ended(ended, timeouts.seconds("container.kill")):
        raise internal("tried to kill container, but did not receive an exit event")


async def send(context: ContainerContext, container: Container, number: int) -> None:
    """Sends a signal and notes that somebody meant to stop the container.

    :raises WharfError: CONFLICT if it doesn't run.
    """
    async with container.lock:
        state = container.state
        if not state.running:
            raise not_running(container)
        configured = container.config.stop_signal
        last = not configured or number == signals.SIGKILL or number == signals.parse(configured)
        if last:
            context.restarts_of(container).cancel()
        if not context.shutting_down and not container.manually_stopped:
            container.manually_stopped = True
            await context.save_state(container)
        if state.restarting:
            # There is no process: to cancel the restart is enough.
            return
        try:
            await context.engine.tasks.kill(container.id, number)
            if last and state.paused:
                await _thaw(context, container)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise WharfError(error.kind, f"Cannot kill container {container.id}: {error.message}") from error
            # It has ended; the exit event is on its way, and the monitor asks if it isn't.
            context.check_exit(container)
        context.publish(container, "kill", {"signal": str(number)})


async def _thaw(context: ContainerContext, container: Container) -> None:
    """A frozen process takes its signal when it thaws. One that has ended, or that an earlier signal has thawed, of
    which the news is still on its way, needs it no more."""
    try:
        await context.engine.tasks.resume(container.id)
    except WharfError as error:
        log.info("container=%s is signalled, but not resumed: %s", container.id, error)


async def pause(context: ContainerContext, container: Container, *, committing: bool = False) -> None:
    """``committing``: remembered first, so that no death of the daemon leaves the container paused.

    :raises WharfError: CONFLICT if it doesn't run, is paused, or waits for its restart.
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
    """Pauses a container that runs; False if it ended by itself in that moment, so that nothing writes any more.

    :raises WharfError: as ``pause``.
    """
    ended = context.waiters.register(container, Condition.NOT_RUNNING)
    try:
        await pause(context, container, committing=True)
    except WharfError:
        if not await _ended(ended, timeouts.seconds("container.unsignalled")):
            raise
        container.state.committing = False
        return False
    ended.cancel()
    return True


async def unpause(context: ContainerContext, container: Container) -> None:
    """:raises WharfError: INTERNAL (as in dockerd) if it isn't paused."""
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
