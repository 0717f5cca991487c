"""The test hosts: engines in namespaces of their own, the links between them, and their faults."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from compat_tests.support.host.processes import marked_processes
from compat_tests.support.host.traces import links, mounts_under
from compat_tests.support.hosts.group import Hosts, hosts
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until

SERVE = "hostname > /index.html; exec httpd -f -p 80 -h /"


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    with hosts(3, disks={2: "128m"}) as group:
        yield group


def reaches(hosts: Hosts, one: int, other: int) -> bool:
    ping = ("busybox", "ping", "-c", "1", "-W", "1", hosts[other].name)
    return hosts[one].run_in_netns(*ping, check=False).status == 0


def test_containers_run_on_each(three: Hosts) -> None:
    three.each(lambda host: host.docker("run", "-d", "--name", "web", "-p", "80:80", "busybox", "sh", "-c", SERVE))
    names = {host.docker("ps", "-q").stdout.strip() for host in three}
    assert len(names) == 3
    for host in three:
        assert host.client.info()["Name"] == host.name
        assert {host.fetch(each.name, 80).strip() for each in three} == names
    three.each(lambda host: host.docker("rm", "-f", "web"))


def test_cut_links(three: Hosts) -> None:
    pairs = [(0, 1), (0, 2), (1, 2)]

    def reached() -> list[bool]:
        return [reaches(three, *pair) for pair in pairs]

    three.cut(three[0], three[1])
    assert reached() == [False, True, True]
    three.heal()
    three.partition([three[2]])
    assert reached() == [True, False, False]
    three.heal()
    assert reached() == [True, True, True]


def test_faults(three: Hosts) -> None:
    host = three[1]
    host.docker("run", "-d", "--name", "kept", "--restart", "always", "busybox", "sleep", "1000")
    host.kill("wharfd")
    host.start()
    host.freeze()
    with pytest.raises(TimeoutError):
        host.api.request("GET", "/_ping", timeout=0.2)
    host.thaw()
    assert host.docker("ps", "--format", "{{.Names}}").stdout == "kept\n"
    began = host.docker("inspect", "-f", "{{.State.StartedAt}}", "kept").stdout
    host.power_off()
    assert not marked_processes(host.resources.footprint.mark)
    host.power_on()
    assert until(lambda: host.docker("inspect", "-f", "{{.State.StartedAt}}", "kept").stdout != began)
    host.docker("rm", "-f", "kept")


def test_a_full_disk(three: Hosts) -> None:
    host = three[2]
    write = ("run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/f", "bs=1M", "count=2")
    with host.full_disk():
        assert host.docker(*write, check=False).status != 0
    host.docker(*write)


def test_nothing_is_left() -> None:
    began = time.monotonic()
    with hosts(5) as five:
        assert time.monotonic() - began < 10 * FACTOR
        five.each(lambda host: host.docker("run", "-d", "busybox", "sleep", "1000"))
        traces = [host.resources.footprint for host in five]
        for each in traces:
            assert each.processes()
            assert not mounts_under(each.root)
            assert each.bridge not in links()
    assert not [line for each in traces for line in each.leftovers()]
    assert not [each.root for each in traces if each.root.exists()]
