"""Health checks: a probe at an interval, the state that follows from its results, and the events of it.

One task per container with a check, asleep between probes. A probe is an exec, and its output the log's. After a
daemon's restart the checks of running containers go on from the state that was stored.
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
from server.containers.model import Container, Health
from server.containers.stdio.client import Client
from server.containers.values.signals import SIGKILL

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
DEFAULT_INTERVAL = 30 * _SECOND
DEFAULT_TIMEOUT = 30 * _SECOND
DEFAULT_START_INTERVAL = 5 * _SECOND
DEFAULT_RETRIES = 3
MAX_OUTPUT = 4096
MAX_LOG = 5
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


def probe_command(container: Container) -> tuple[str, ...]:
    """What a probe runs; empty: there is no check."""
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
    """As Go prints it: ``1m30s``, ``1.5s``, ``20ms``."""
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
    """Nanoseconds to the next probe: shorter while the container still starts."""
    if status == STARTING and now_ns - started_ns < config.start_period:
        return config.start_interval or DEFAULT_START_INTERVAL
    return config.interval or DEFAULT_INTERVAL


def judge(health: Health, config: HealthConfig, started_ns: int, *, exit_code: int, begin_ns: int) -> None:
    """What a result makes of the state. Failures in the start period count only after a first success."""
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
            hooks.append(self._ended)
        context.hooks.removed.append(self._cancel)

    def open(self) -> None:
        """Goes on with the containers that run already."""
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

    def _ended(self, container: Container) -> None:
        """Stopped or paused. Docker calls what it no longer checks unhealthy."""
        self._cancel(container)
        if container.state.health is not None:
            container.state.health.status = UNHEALTHY
            if container.state.health.failing_streak:
                container.state.health.failing_streak = 0
            container.row = None

    def _cancel(self, container: Container) -> None:
        if (task := self._tasks.pop(container.id, None)) is not None:
            task.cancel()

    async def _run(self, container: Container) -> None:
        config, state = container.config.healthcheck, container.state
        assert config is not None
        while (health := state.health) is not None:
            pause = interval(config, health.status, state.started_ns, time.time_ns())
            await asyncio.sleep(pause / _SECOND)
            begin = time.time_ns()
            try:
                code, output = await self._probe(container, config.timeout or DEFAULT_TIMEOUT)
            except Exception:
                log.exception("container=%s health check failed", container.id)
                continue
            await self._result(container, config, health, code, output, begin)

    async def _result(
        self, container: Container, config: HealthConfig, health: Health, code: int, output: str, begin: int
    ) -> None:
        before = health.status
        entry = {"Start": rfc3339(begin), "End": rfc3339(time.time_ns()), "ExitCode": code, "Output": output}
        health.log[:] = [*health.log[1 - MAX_LOG :], entry] if MAX_LOG > 1 else [entry]
        judge(health, config, container.state.started_ns, exit_code=code, begin_ns=begin)
        if health.status == before:
            return
        container.row = None
        self._context.publish(container, f"health_status: {health.status}")
        # Shielded: a stop cancels this task, and the store must not be left in the middle of it.
        await asyncio.shield(self._context.spawn(self._save(container), f"save {container.id[:12]}"))

    async def _save(self, container: Container) -> None:
        async with container.lock:
            if self._context.registry.by_id(container.id) is container:
                await self._context.save_state(container)

    async def _probe(self, container: Container, timeout_ns: int) -> tuple[int, str]:
        """Exit code and output; -1 for a probe that could not run or took too long."""
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
            return await self._finished(instance, Client(theirs, b""), output, reading, timeout_ns)
        finally:
            theirs.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            ours.close()

    async def _finished(
        self,
        instance: ExecInstance,
        client: Client,
        output: "_Output",
        reading: "asyncio.Task[None]",
        timeout_ns: int,
    ) -> tuple[int, str]:
        try:
            # What the start takes on a busy host is no time of the probe's; it has deadlines of its own.
            session = await self._execs.launch(instance, client, framed=False)
            client.sock.close()
            if session is not None:
                session.abandon()
            try:
                async with asyncio.timeout(timeout_ns / _SECOND):
                    await instance.ended.wait()
                    # The shim closes the session before it tells the exit.
                    await asyncio.shield(reading)
            except TimeoutError:
                await self._kill(instance)
                said = f": {output.text()}" if output.text() else ""
                return -1, f"Health check exceeded timeout ({duration(timeout_ns)}){said}"
        except asyncio.CancelledError:
            # Stopped, paused, or the daemon ends: the probe shall not stay behind.
            self._context.spawn(self._kill(instance), "end of a health check")
            raise
        except WharfError as error:
            return -1, error.message
        return instance.exit_code or 0, output.text()

    async def _kill(self, instance: ExecInstance) -> None:
        with contextlib.suppress(WharfError):
            await self._execs.kill(instance, SIGKILL)

    async def close(self) -> None:
        """Ends the probing; the state stays as it is for the next daemon."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Output:
    """Keeps the beginning of a probe's output and reads the rest away."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._kept = bytearray()
        self._cut = False

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._sock, 65536):
                context = MAX_OUTPUT - len(self._kept)
                self._cut = self._cut or len(data) > context
                self._kept += data[:context]

    def text(self) -> str:
        text = self._kept.decode(errors="replace")
        return text + "..." if self._cut else text
