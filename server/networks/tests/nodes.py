"""Several nodes of a swarm: each is a thread in a network namespace of its own, with an engine's networks; a bridge in
the test's namespace connects them."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

from engine.common.system import mounts
from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_set
from server.networks.netlink.tests.space import WAIT, own_namespace
from server.networks.tests.world import World, configured

#: The test's own address on the bridge.
OUTSIDE = "192.0.2.100"
_T = TypeVar("_T")


class Node:
    """``path``: its network namespace. ``address``: that of its link to the other nodes."""

    def __init__(self, root: Path, number: int) -> None:
        self.root = root
        self.address = f"192.0.2.{number}"
        self.path = ""
        self.world = World(root, configured(root))
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"node{number}")
        self._thread.start()
        assert self._ready.wait(WAIT)

    def _run(self) -> None:
        # The threads and processes that this one starts inherit the namespace.
        with own_namespace():
            for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                netns.sysctl(name, "0")
            self.path = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
            asyncio.set_event_loop(self._loop)
            self._loop.call_soon(self._ready.set)
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine on the node."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    def link(self, host: Netlink, bridge: int) -> None:
        """Connects the node with the bridge."""
        name = f"to{self.address.rpartition('.')[2]}"
        target = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            host.run(link_add("veth", name, peer="up0", peer_netns=target), link_set(name, master=bridge, up=True))
        finally:
            os.close(target)
        with contextlib.closing(netns.open_netlink(self.path)) as inside:
            link = inside.link("up0")
            assert link is not None
            inside.run(link_set(index=link.index, up=True), address_add(link.index, ip_interface(f"{self.address}/24")))

    def close(self) -> None:
        async def end() -> None:
            for container in tuple(self.world.registry):
                container.state.running = False
                await self.world.networks.stop(container)
            await self.world.close()

        try:
            self.call(end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT)


@contextlib.contextmanager
def nodes(root: Path, count: int) -> Iterator[Sequence[Node]]:
    """Nodes with running engines. The test's thread is in the namespace of their bridge, with the address OUTSIDE."""
    with own_namespace(), contextlib.ExitStack() as stack:
        host = stack.enter_context(Netlink())
        stack.callback(mounts.unmount_under, str(root))
        host.run(link_add("bridge", "lan0", up=True))
        link = host.link("lan0")
        assert link is not None
        host.run(address_add(link.index, ip_interface(f"{OUTSIDE}/24")))
        made = []
        for number in range(1, count + 1):
            node = Node(root / f"node{number}", number)
            stack.callback(node.close)
            node.link(host, link.index)
            node.call(node.world.open())
            made.append(node)
        yield made
