"""Members of etcd with certificates of one swarm, on loopback, for tests."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from engine.common.errors import Kind, WharfError
from server.swarm import certificates
from server.swarm.etcd.child import EtcdChild
from server.swarm.etcd.members import Members
from server.swarm.etcd.program import MemberOptions, Pems

T = TypeVar("T")

_HOUR_NS = 3600 * 10**9


def free_port() -> int:
    """A port above 20000 and below those that the kernel gives to clients, so that it stays free."""
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Cluster:
    """Makes members. ``directory``: of their files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.root = certificates.make_root()

    def pems(self, name: str, role: str = "manager") -> Pems:
        issued = certificates.issue(
            self.root, swarm_id="swarm", node_id=name, role=role, lifetime_ns=_HOUR_NS, address="127.0.0.1"
        )
        return Pems(issued.certificate, issued.key, self.root.certificate)

    def options(self, name: str, initial_cluster: str = "") -> MemberOptions:
        address = f"127.0.0.1:{free_port()}"
        return MemberOptions(
            data=self._directory / name / "etcd",
            runtime=self._directory / name / "run",
            name=name,
            listen=address,
            advertise=address,
            initial_cluster=initial_cluster,
            existing=bool(initial_cluster),
        )

    def child(self, options: MemberOptions) -> EtcdChild:
        return EtcdChild(options, self.pems(options.name))


@contextlib.asynccontextmanager
async def running(child: EtcdChild) -> AsyncIterator[EtcdChild]:
    await child.start()
    try:
        await child.serving()
        yield child
    finally:
        await child.close()


@contextlib.asynccontextmanager
async def joined(cluster: Cluster, members: Members, name: str) -> AsyncIterator[EtcdChild]:
    """A member that was added as a learner, and promoted."""
    options = cluster.options(name)
    added = await repeated(lambda: members.add_learner(name, options.peer_url))
    options = replace(options, initial_cluster=added.initial_cluster, existing=True)
    async with running(cluster.child(options)) as child:
        await repeated(lambda: members.promote(added.id))
        yield child


async def repeated(work: Callable[[], Awaitable[T]]) -> T:
    """Repeats what fails with UNAVAILABLE."""
    while True:
        try:
            return await work()
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
        await asyncio.sleep(0.1)
