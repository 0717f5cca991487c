"""The pool of network namespaces while other programs change the host's links."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import NamespacePool
from server.networks.netlink.rtnetlink import Netlink, link_delete
from server.networks.netlink.tests.space import link_names, own_namespace

pytestmark = pytest.mark.root


def test_a_namespace_whose_link_was_deleted_is_not_taken(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_namespace())
        host = stack.enter_context(Netlink())
        netns.prepare(str(tmp_path))
        stack.callback(netns.unprepare, str(tmp_path))
        executor = stack.enter_context(ThreadPoolExecutor(1))
        pool = NamespacePool(str(tmp_path), host, executor, alias="wharf:test", mtu=1500, size=2)
        stack.callback(pool.close)
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
