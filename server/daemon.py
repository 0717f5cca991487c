"""The running daemon: services, routes and sockets on one event loop, and signal handlers."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from engine.common import stacks
from engine.common.errors import Kind, WharfError
from engine.common.system import idle
from engine.shim import zygote
from server.app import EngineApp
from server.config import Config, ConfigError
from server.config.flags import Given
from server.config.hosts import parse_host
from server.http.server import HttpServer
from server.http.versioning import common_headers
from server.launch import StartError, Supervisor
from server.reload import Reloader
from server.routes import all_routes, metrics
from server.sockets import Listener, bind_all, tls_context
from server.wiring import Services, open_services

log = logging.getLogger("wharfd")

# Threads for blocking work of handlers. More cost memory and do not speed up a busy disk.
_THREADS = 8

# Seconds from the start of serving to the garbage collection of start-up objects, which takes 50 ms: clients that
# wait for the daemon must not wait for that.
_FREEZE_DELAY = 1.0


def serve(config: Config, given: Given, supervisor: Supervisor | None, handle: zygote.Handle | None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status.

    :raises ConfigError: a socket can't be bound. :raises StartError: a service can't be started.
    """
    # Every connection needs a descriptor, and the soft limit is often 1024. The supervisor is forked already, so
    # containers inherit the old limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = tls_context(config)
    with _lock_data_root(config.data_root):
        return _serve(config, given, supervisor, handle, context)


@contextlib.contextmanager
def _lock_data_root(root: Path) -> Iterator[None]:
    """Lock the data root: a second daemon would remove the first one's containers and links as leftovers.

    The lock file is opened after all forks, because the lock lives as long as any copy of the descriptor.

    :raises ConfigError: another daemon holds the lock.
    """
    fd = os.open(root / "wharfd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another daemon is using the data root {root}") from None
        yield
    finally:
        os.close(fd)


def _serve(
    config: Config, given: Given, supervisor: Supervisor | None, handle: zygote.Handle | None, context: Any
) -> int:
    listeners = bind_all(config)
    try:
        daemon = _Daemon(config, given, supervisor, handle)
        return uvloop.run(daemon.run(listeners, context))
    except WharfError as error:
        raise StartError(error.message) from error
    finally:
        for listener in listeners:
            listener.close()


def notify(state: str) -> None:
    """Send a state to systemd (``NOTIFY_SOCKET``), if it is set."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())


def _freeze_objects() -> None:
    gc.collect()
    # Objects from the start-up live forever: exclude them from later collections.
    gc.freeze()
    idle.request_received()


class _Daemon:
    def __init__(
        self, config: Config, given: Given, supervisor: Supervisor | None, handle: zygote.Handle | None
    ) -> None:
        self._config = config
        self._given = given
        self._supervisor = supervisor
        self._zygote = handle
        self._tasks: set[asyncio.Task[None]] = set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, listeners: list[Listener], context: Any) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        stacks.dump_on_sigusr1(loop)
        # Ignore SIGHUP until there are services to reload.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            # Before the services: a supervisor that dies while they open must be restarted, too.
            if self._supervisor is not None:
                self._spawn(self._supervisor.watch())
            async with contextlib.AsyncExitStack() as stack:
                services = await self._open(stack)
                app = await self._application(services)
                stack.callback(app.close)
                if self._config.otlp_endpoint:
                    self._trace(app, stack)
                reloader = Reloader(self._config, self._given, services, app)
                loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(reloader.reload()))
                await self._serve(listeners, context, app, ending, stack)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._supervisor is not None:
            await self._supervisor.stop()
        return 0

    async def _open(self, stack: contextlib.AsyncExitStack) -> Services:
        """Open all services; retry once if the supervisor died meanwhile.

        :raises WharfError: a service can't be opened.
        """
        while True:
            deaths = self._supervisor.deaths if self._supervisor is not None else 0
            try:
                return await stack.enter_async_context(open_services(self._config, self._zygote))
            except WharfError as error:
                if error.kind is not Kind.UNAVAILABLE or self._supervisor is None or self._supervisor.deaths == deaths:
                    raise
                log.warning("the supervisor died while the services were opened; trying again: %s", error)

    async def _application(self, services: Services) -> EngineApp:
        """:raises WharfError: an authorization plugin is missing or fails.
        :raises ConfigError: the policy is invalid."""
        app = EngineApp(all_routes(), services, services.metrics.observe, self._config.oldest_version)
        if self._config.has_policy or any(parse_host(text).scope for text in self._config.hosts):
            # Here: an engine without a policy doesn't load these modules.
            from server.access.setup import make_gate

            app.gate = make_gate(self._config, app.endpoints, services)
        try:
            await app.authorize(self._config.authorization_plugins)
        except WharfError as error:
            raise WharfError(error.kind, f"failed to validate authorization plugin: {error.message}") from error
        return app

    def _trace(self, app: EngineApp, stack: contextlib.AsyncExitStack) -> None:
        """:raises WharfError: FAILED_PRECONDITION: the packages of OpenTelemetry are missing."""
        from server.tracing import TracedRequests, Traces  # here: only this flag needs it

        traces = Traces(self._config.otlp_endpoint)
        stack.push_async_callback(traces.close)
        app.add_middleware(TracedRequests, traces=traces)

    async def _show_page(self, listener: Listener, app: EngineApp, stack: contextlib.AsyncExitStack) -> HttpServer:
        # Here: an engine without a page doesn't load these modules.
        from server.access.sessions import Sessions
        from server.ui.application import Page

        app.sessions = Sessions()
        page = await stack.enter_async_context(Page(app, app.state.services, app.sessions, self._config))
        server = HttpServer(page, [])
        await server.listen(listener.sock)
        log.info("Page listen on %s", listener.host)
        return server

    async def _serve(
        self,
        listeners: list[Listener],
        context: Any,
        app: EngineApp,
        ending: asyncio.Event,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        server = HttpServer(app, common_headers(experimental=self._config.experimental))
        services: Services = app.state.services
        services.metrics.count_with(lambda: len(server.state.connections), lambda: len(server.state.tasks))
        if self._config.metrics_addr:
            await services.metrics.start()
        # Its clients can't be identified, so with a policy it has no metrics of containers.
        shown = services if not self._config.has_policy else replace(services, metrics=services.metrics.of_engine())
        counters = HttpServer(EngineApp(metrics.routes, shown), [])
        servers = [server, counters]
        for listener in listeners:
            if listener.page:
                servers.append(await self._show_page(listener, app, stack))
                continue
            if listener.metrics:
                await counters.listen(listener.sock)
                continue
            await server.listen(listener.sock, context if listener.tls else None)
            log.info("API listen on %s", listener.host)
        if services.jobs is not None:
            await services.jobs.open(server)
        asyncio.get_running_loop().call_later(_FREEZE_DELAY, _freeze_objects)
        notify("READY=1")
        log.info("Daemon has completed initialization")
        await ending.wait()
        log.info("Processing signal 'terminated'")
        notify("STOPPING=1")
        await asyncio.gather(*(each.close(self._config.shutdown_timeout) for each in servers))


__all__ = ["ConfigError", "notify", "serve"]
