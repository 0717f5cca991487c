"""The pool of network namespaces while other programs change the host's links."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import NamespacePool
from server.networks.netlink.rtnetlink import Netlink, link_add, link_delete, link_set
from server.networks.netlink.tests.space import link_names, own_namespace

pytestmark = pytest.mark.root

_Parts = tuple[contextlib.ExitStack, Netlink, ThreadPoolExecutor, NamespacePool]


@contextlib.contextmanager
def pool_on_host(directory: Path, size: int) -> Iterator[_Parts]:
    """A pool in a network namespace of its own: with the stack that cleans up, the host's links and the executor."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_namespace())
        host = stack.enter_context(Netlink())
        netns.prepare(str(directory))
        stack.callback(netns.unprepare, str(directory))
        executor = stack.enter_context(ThreadPoolExecutor(1))
        pool = NamespacePool(str(directory), host, executor, alias="wharf:test", mtu=1500, size=size)
        stack.callback(pool.close)
        yield stack, host, executor, pool


def test_a_namespace_whose_link_was_deleted_is_not_taken(tmp_path: Path) -> None:
    with pool_on_host(tmp_path, size=2) as (stack, host, executor, pool):
        pool.refill()
        executor.submit(bool).result()  # both are made
        stale = {name for name in link_names() if name.startswith("veth")}
        assert len(stale) == 2
        for name in stale:
            host.run(link_delete(name))
        taken = pool.take("")
        stack.callback(taken.delete)
        assert taken.veth not in stale
        assert host.link(taken.veth) is not None
        executor.submit(bool).result()
        assert len(list(tmp_path.iterdir())) == 3  # the two stale ones are gone


def test_the_host_end_gets_no_link_local_address(tmp_path: Path) -> None:
    with pool_on_host(tmp_path, size=0) as (stack, host, _, pool):
        taken = pool.take("")
        stack.callback(taken.delete)
        host.run(link_add("bridge", "br0", up=True))
        bridge = host.link("br0")
        assert bridge is not None
        taken.netlink.run(link_set(index=taken.index, up=True))
        host.run(link_set(taken.veth, master=bridge.index, up=True))
        deadline = time.monotonic() + 30
        while "br0" not in (text := Path("/proc/thread-self/net/if_inet6").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # the bridge gets its address once it has a port
        assert taken.veth not in text
