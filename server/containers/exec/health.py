"""Health checks: runs a probe at an interval, derives the health status from the results, and publishes its changes.

There is one task for each container with a check. A probe is an exec, whose output is in the health log. After a
restart of the daemon the checks of running containers continue with the stored state.
"""

import asyncio
import contextlib
import logging
import socket
import time

from api_models.container import HealthConfig
from api_models.times import rfc3339
from engine.common.errors import WharfError
from server.containers.context import ContainerContext
from server.containers.exec.model import ExecInstance, ExecRequest
from server.containers.exec.service import Exec
from server.containers.hooks import call
from server.containers.model import Container, Health
from server.containers.stdio.client import Client
from server.containers.values.signals import SIGKILL

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
DEFAULT_INTERVAL = 30 * _SECOND
DEFAULT_TIMEOUT = 30 * _SECOND
DEFAULT_START_INTERVAL = 5 * _SECOND
DEFAULT_RETRIES = 3
#: Bytes of a probe's output, and number of results, in the health log.
MAX_OUTPUT = 4096
MAX_LOG = 5
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


def probe_command(container: Container) -> tuple[str, ...]:
    """The command of a probe; empty: the container has no check."""
    config = container.config.healthcheck
    test = tuple(config.test or ()) if config is not None else ()
    if not test or test[0] == "NONE":
        return ()
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return (*(container.config.shell or ("/bin/sh", "-c")), *test[1:2])
    log.warning("container=%s unknown kind of health check %r", container.id, test[0])
    return ()


def duration(ns: int) -> str:
    """A duration in Go's form (time.Duration.String): ``1m30s``, ``1.5s``, ``20ms``."""
    if ns < _SECOND:
        for unit, size in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
            if ns >= size:
                return f"{ns / size:.9f}".rstrip("0").rstrip(".") + unit
        return "0s"
    minutes, rest = divmod(ns, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / _SECOND:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def interval(config: HealthConfig, status: str, started_ns: int, now_ns: int) -> int:
    """The nanoseconds to the next probe; ``start_interval`` in the start period."""
    if status == STARTING and now_ns - started_ns < config.start_period:
        return config.start_interval or DEFAULT_START_INTERVAL
    return config.interval or DEFAULT_INTERVAL


def apply_result(health: Health, config: HealthConfig, started_ns: int, *, exit_code: int, begin_ns: int) -> None:
    """Updates the health state with a probe's result. A failure in the start period counts only after a success."""
    if exit_code == 0:
        health.failing_streak, health.status = 0, HEALTHY
        return
    if health.status == STARTING and begin_ns - started_ns < config.start_period:
        return
    health.failing_streak += 1
    if health.failing_streak >= (config.retries if config.retries > 0 else DEFAULT_RETRIES):
        health.status = UNHEALTHY


class HealthChecks:
    """Runs the checks of all containers."""

    def __init__(self, context: ContainerContext, execs: Exec) -> None:
        self._context = context
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}
        context.hooks.started.append(self._started)
        context.hooks.unpaused.append(self._watch)
        for hooks in (context.hooks.stopped, context.hooks.paused):
            hooks.append(self._unwatch)
        context.hooks.removed.append(self._cancel)

    def open(self) -> None:
        """Starts the checks of containers that run already."""
        for container in self._context.registry:
            state = container.state
            if state.running and not state.paused and not state.restarting:
                self._watch(container)

    def _started(self, container: Container) -> None:
        if not probe_command(container):
            container.state.health = None
            return
        health = container.state.health
        if health is None:
            health = container.state.health = Health()
        health.status, health.failing_streak = STARTING, 0
        self._watch(container)

    def _watch(self, container: Container) -> None:
        if container.id in self._tasks or not probe_command(container):
            return
        if container.state.health is None:
            container.state.health = Health()
        self._tasks[container.id] = asyncio.create_task(self._run(container), name=f"health {container.id[:12]}")

    def _unwatch(self, container: Container) -> None:
        """Ends the checks of a stopped or paused container, which is then unhealthy, as in dockerd."""
        self._cancel(container)
        if (health := container.state.health) is not None:
            health.status, health.failing_streak = UNHEALTHY, 0
            container.row = None

    def _cancel(self, container: Container) -> None:
        if (task := self._tasks.pop(container.id, None)) is not None:
            task.cancel()

    async def _run(self, container: Container) -> None:
        config, state = container.config.healthcheck, container.state
        assert config is not None
        while (health := state.health) is not None:
            delay = interval(config, health.status, state.started_ns, time.time_ns())
            await asyncio.sleep(delay / _SECOND)
            begin = time.time_ns()
            try:
                code, output = await self._probe(container, config.timeout or DEFAULT_TIMEOUT)
            except Exception:
                log.exception("container=%s health check failed", container.id)
                continue
            await self._record(container, config, health, code, output, begin)

    async def _record(
        self, container: Container, config: HealthConfig, health: Health, code: int, output: str, begin: int
    ) -> None:
        before = health.status
        entry = {"Start": rfc3339(begin), "End": rfc3339(time.time_ns()), "ExitCode": code, "Output": output}
        health.log[:] = [*health.log, entry][-MAX_LOG:]
        apply_result(health, config, container.state.started_ns, exit_code=code, begin_ns=begin)
        if health.status == before:
            return
        container.row = None
        self._context.publish(container, f"health_status: {health.status}")
        call(self._context.hooks.health, container)
        # A stop cancels this task, but must not cancel the write.
        await asyncio.shield(self._context.spawn(self._save(container), f"save {container.id[:12]}"))

    async def _save(self, container: Container) -> None:
        async with container.lock:
            if self._context.registry.by_id(container.id) is container:
                await self._context.save_state(container)

    async def _probe(self, container: Container, timeout_ns: int) -> tuple[int, str]:
        """The exit code and the output; -1: the probe could not be started or exceeded its timeout."""
        request = ExecRequest(cmd=probe_command(container), stdout=True, stderr=True)
        try:
            instance = self._execs.create(container.id, request, quiet=True)
        except WharfError as error:
            return -1, error.message
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        theirs.settimeout(0)
        output = _Output(ours)
        reading = asyncio.create_task(output.read())
        try:
            return await self._run_probe(instance, Client(theirs, b""), output, reading, timeout_ns)
        finally:
            theirs.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            ours.close()

    async def _run_probe(
        self,
        instance: ExecInstance,
        client: Client,
        output: "_Output",
        reading: "asyncio.Task[None]",
        timeout_ns: int,
    ) -> tuple[int, str]:
        try:
            # The timeout doesn't include the start, which may take long on a busy host and has its own deadlines.
            session = await self._execs.launch(instance, client, framed=False)
            client.sock.close()
            if session is not None:
                session.abandon()
            try:
                async with asyncio.timeout(timeout_ns / _SECOND):
                    await instance.ended.wait()
                    # The shim closes the session before it reports the exit.
                    await asyncio.shield(reading)
            except TimeoutError:
                await self._kill(instance)
                suffix = f": {output.text()}" if output.text() else ""
                return -1, f"Health check exceeded timeout ({duration(timeout_ns)}){suffix}"
        except asyncio.CancelledError:
            # The container was stopped or paused, or the daemon shuts down.
            self._context.spawn(self._kill(instance), "end of a health check")
            raise
        except WharfError as error:
            return -1, error.message
        return instance.exit_code or 0, output.text()

    async def _kill(self, instance: ExecInstance) -> None:
        with contextlib.suppress(WharfError):
            await self._execs.kill(instance, SIGKILL)

    async def close(self) -> None:
        """Ends all checks; the health states stay for the next daemon."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Output:
    """Reads all output of a probe and keeps the first ``MAX_OUTPUT`` bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._kept = bytearray()
        self._cut = False

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._sock, 65536):
                free = MAX_OUTPUT - len(self._kept)
                self._cut = self._cut or len(data) > free
                self._kept += data[:free]

    def text(self) -> str:
        text = self._kept.decode(errors="replace")
        return text + "..." if self._cut else text
