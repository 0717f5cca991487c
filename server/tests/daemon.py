"""wharfd in the test's process: all routes and services over the fake engine, asked through the ASGI callable.

    def test_something(daemon: Daemon) -> None:
        answer = daemon.get("/v1.41/containers/json", all=1)
        assert (answer.status_code, answer.json()) == (200, [])

Each JSON answer is checked against the published API description. No root and no supervisor; a socket only where a
handler takes the connection over (:meth:`Daemon.hijack`). Containers are made but not started: :meth:`Daemon.run` gives
one a task of the fake.
"""

import asyncio
import itertools
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from api_models.supported import MAXIMUM, spelled
from compat_tests.swagger.check import check
from engine.api.tests.fake import FakeServer
from engine.api.types import ContainerRecord
from engine.common.system.cgroups import CgroupLayout
from engine.runtime.probe import Binary, Probe
from server.access.gate import Gate
from server.access.identity import Account, Identity
from server.access.policy import Policy
from server.app import EngineApp
from server.config import Config
from server.containers.model import Container
from server.containers.mounts.initlayer import layer_of
from server.containers.run.process import started_time
from server.containers.spec.host import HostFacts
from server.events import EventBus
from server.http.server import HttpServer
from server.http.versioning import common_headers
from server.plugins.discovery import Plugins
from server.routes import all_routes
from server.store.database import Database
from server.tests import samples
from server.tests.fake_networks import FakeNetworks
from server.volumes.local import LocalDriver
from server.volumes.service import Volumes
from server.volumes.tests.stores import MemoryStore
from server.wiring import Services, make_services

T = TypeVar("T")

FACTS = HostFacts(kernel=(6, 18), arch="amd64", cgroups=CgroupLayout("v2", frozenset(("cpu", "memory"))), cpus=2)
PROBE = Probe(Binary("runc", "/usr/bin/runc", "1.1.5", "v1.1.5"), {"runc": Binary("runc", "/usr/bin/runc", "1.1.5")})
SNAPSHOTTER = "native"


@dataclass(slots=True)
class _Peer:
    """The socket of a client: a process with this uid and gid, and without supplementary groups. ``path``: where the
    daemon accepted it."""

    uid: int
    path: str
    family: int = socket.AF_UNIX

    def getsockname(self) -> str:
        return self.path

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        if not size:
            return os.pidfd_open(os.getpid())
        return struct.pack("iII", os.getpid(), self.uid, self.uid) if option == socket.SO_PEERCRED else b""


@dataclass(slots=True)
class _Transport:
    peer: _Peer

    def get_extra_info(self, name: str) -> _Peer | None:
        return self.peer if name == "socket" else None


@dataclass(slots=True)
class _Server:
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: common_headers(experimental=False))


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Connection:
    """What handlers ask of the protocol under a request; there is no socket to take over. ``url``: its target."""

    url: bytes
    transport: _Transport
    disconnect_cancels: bool = False
    half_closed: bool = False
    detached: bool = False
    in_body: None = None
    server_state: _Server = field(default_factory=_Server)


@dataclass(slots=True)
class Daemon:
    services: Services
    engine: FakeServer
    database: Database
    _runner: asyncio.Runner
    _app: EngineApp
    #: The uid of the client, and the path of the socket that it uses.
    _uid: int = 0
    _path: str = ""

    @property
    def app(self) -> EngineApp:
        return self._app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.wait(self.begin(method, path, **options))

    def begin(self, method: str, path: str, **options: Any) -> Awaitable[httpx.Response]:
        """A request that is sent when it is awaited, for several at a time."""
        return self._request(method, path, options)

    def get(self, path: str, **query: object) -> httpx.Response:
        return self.request("GET", path, params=query)

    def post(self, path: str, body: object = None, **query: object) -> httpx.Response:
        return self.request("POST", path, params=query, **({} if body is None else {"json": body}))

    def delete(self, path: str, **query: object) -> httpx.Response:
        return self.request("DELETE", path, params=query)

    def refusal(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and sentence of an error."""
        answer = self.request(method, path, **options)
        assert answer.status_code >= 400, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()["message"]

    def wait(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await work

        return self._runner.run(bounded())

    def restrict(self, policy: Mapping[str, Any]) -> None:
        """Applies a policy (the document of ``policy.toml``) from now on."""
        self.wait(self._restrict(policy))

    async def _restrict(self, policy: Mapping[str, Any]) -> None:
        identity = partial(
            Identity,
            owner_of_process=self.services.owner_of_process,
            by_uid=lambda uid: Account(str(uid), uid) if uid != 65534 else None,
        )
        self._app.close()
        self._app.gate = Gate(self.services, Policy(policy), {}, identity)

    def as_uid(self, uid: int) -> "Daemon":
        """The same daemon, asked by a process with this uid and gid. By default root asks."""
        return replace(self, _uid=uid)

    def through(self, path: str) -> "Daemon":
        """The same daemon, asked over another unix socket."""
        return replace(self, _path=path)

    def authorize(self, *names: str, directory: Path) -> None:
        """Puts authorization plugins, whose sockets are in this directory, before all routes."""
        self.wait(self._app.authorize(names, Plugins((directory,), ())))

    def hijack(self, method: str, path: str, body: object = None, *, upgrade: bool = True) -> tuple[bytes, bytes]:
        """A request over a real socket, whose connection the handler may take over: the head and all that follows."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: docker", f"Content-Length: {len(data)}"]
        lines += ["Content-Type: application/json"] if data else []
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
        request = "\r\n".join([*lines, "", ""]).encode() + data
        head, _, rest = self.exchange(request).partition(b"\r\n\r\n")
        return head, rest

    def exchange(self, request: bytes) -> bytes:
        """The answer to these bytes over a real socket, to its end."""
        return self.wait(self._exchange(request))

    async def _exchange(self, request: bytes) -> bytes:
        server = HttpServer(self._app, common_headers(experimental=False))
        path = self.services.system.config.exec_root / "api.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            try:
                await server.listen(listener)
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(request)
                writer.write_eof()
                answer = await reader.read()
                writer.close()
                await writer.wait_closed()
            finally:
                await server.close(5)
                path.unlink()
        return answer

    def connection(self, url: bytes) -> _Connection:
        """The connection of a request, as handlers see it."""
        return _Connection(url, _Transport(_Peer(self._uid, self._path)))

    async def _request(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        async def app(scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
            query = scope["query_string"]
            url = scope["raw_path"] + (b"?" + query if query else b"")
            scope["extensions"] = {**scope.get("extensions", {}), "connection": self.connection(url)}
            await self._app(scope, receive, send)

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://docker") as client:
            answer = await client.request(method, path, **options)
        target = answer.request.url.raw_path.decode()
        media_type = answer.headers.get("content-type", "")
        check(method, target, answer.status_code, media_type, spelled(MAXIMUM), answer.content)
        return answer

    # What tests begin with.

    def load(self, *names: str, config: dict[str, Any] | None = None, files: dict[str, bytes] | None = None) -> str:
        """An image with one layer, by ``docker load``; returns its id. Containers can be made of it at once."""
        archive = samples.archive(names, samples.layer(files or {"etc/hostname": b""}), config or {})
        answer = self.request("POST", "/images/load", content=archive)
        assert b"Loaded image" in answer.content, answer.text
        return self.wait(self._ready(names[0] if names else answer.json()["stream"].split()[-1]))

    async def _ready(self, name: str) -> str:
        """Commits the layer with /etc/hosts and the like, which wharfd makes through a mount."""
        image = await self.services.images.resolve(name)
        snapshots = self.services.engine.snapshots
        if layer_of(image) not in {info.name async for info in snapshots.walk()}:
            await snapshots.prepare("init", image.chain_id)
            await snapshots.commit(layer_of(image), "init")
        return image.id

    def create(self, name: str = "", **body: Any) -> str:
        """A container; returns its id."""
        answer = self.post("/containers/create", {"Image": "busybox", "Cmd": ["top"], **body}, name=name)
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["Id"]
        return found

    def run(self, name: str = "", **body: Any) -> Container:
        """A container that runs as a task of the fake. The start itself needs mounts, a network and a shim."""
        container = self.services.containers.get(self.create(name, **body))
        self.start(container)
        return container

    def start(self, container: Container) -> None:
        """Gives a created container a task of the fake."""
        self.wait(self.start_task(container))

    async def start_task(self, container: Container) -> None:
        engine = self.services.engine
        spec = {"process": {"args": ["top"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}}
        await engine.containers.create(ContainerRecord(container.id, spec=spec))
        state = container.state
        state.pid = await engine.tasks.create(container.id)
        state.pid_started = started_time(state.pid)
        await engine.tasks.start(container.id)
        state.running, state.started_ns = True, time.time_ns()
        container.row = None

    def events(self, **filters: list[str]) -> list[dict[str, Any]]:
        """The events so far that the filters match."""
        answer = self.get("/events", since=0, until=f"{time.time():.9f}", filters=json.dumps(filters))
        return [json.loads(line) for line in answer.text.splitlines()]


async def _opened(stack: AsyncExitStack, engine: FakeServer, config: Config, database: Database) -> Services:
    bus = EventBus()
    stack.callback(database.close)
    return await make_services(
        config,
        stack,
        engine=engine.client(snapshotter=SNAPSHOTTER),
        database=database,
        bus=bus,
        networks=FakeNetworks(config, bus),
        volumes=Volumes(MemoryStore(), bus, LocalDriver(config.data_root / "volumes")),
        facts=FACTS,
        runtimes=PROBE,
        snapshotter=SNAPSHOTTER,
    )


@contextmanager
def serving(directory: Path, *, engine: FakeServer | None = None, **settings: Any) -> Iterator[Daemon]:
    """A daemon with its roots below ``directory``. ``engine``: of the daemon that has ended, for one that starts again.
    ``settings``: fields of the configuration."""
    config = Config(data_root=directory / "data", exec_root=directory / "run", userland_proxy=False, **settings)
    config.data_root.mkdir(exist_ok=True)
    config.exec_root.mkdir(exist_ok=True)
    engine = engine or FakeServer(directory)
    # Inspect asks the kernel whether a process lives: this one does, and wharfd signals none by its pid.
    engine.tasks.pids = itertools.repeat(os.getpid())
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            database = Database(config.data_root / "wharf.db")
            services = runner.run(_opened(stack, engine, config, database))
            app = EngineApp(all_routes(), services, minimum=config.oldest_version)
            stack.callback(app.close)
            yield Daemon(services, engine, database, runner, app)
        finally:
            runner.run(stack.aclose())
