"""Two managers that keep the state of the swarm in the etcd of their site, with TLS and certificates of clients.

The tests go on from one to the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.hosts.group import hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.segment import SUBNET
from compat_tests.support.hosts.swarm import PORT, Swarm, agree, count, info, leader, listed, nodes, placed, settles
from compat_tests.support.servers.etcd import SiteEtcd

ALREADY = "This node is already part of a swarm."
NO_LEADER = "rpc error: code = Unknown desc = The swarm does not have a leader."


@pytest.fixture(scope="module", autouse=True)
def wharf_only(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--engine") == "dockerd":
        pytest.skip("dockerd has its own store")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> SiteEtcd:
    """It has the address of the segment's bridge, and does not run yet."""
    return SiteEtcd(tmp_path_factory.mktemp("etcd"), str(SUBNET[1]))


@pytest.fixture(scope="module")
def site(etcd: SiteEtcd) -> Iterator[Swarm]:
    with pytest.MonkeyPatch.context() as patch:
        # A request fails sooner without the store, and a join goes on in the background.
        patch.setenv("WHARF_TIMEOUTS", "swarm.store=2,swarm.join=3")
        yield from _site(etcd)


def _site(etcd: SiteEtcd) -> Iterator[Swarm]:
    with hosts(2, *etcd.flags) as two:
        try:
            etcd.start(two.enter)
            swarm = Swarm(two, managers=2)
            swarm.form()
            yield swarm
        finally:
            etcd.stop()


def _create(host: Host, name: str) -> str:
    """Create a config; returns the error."""
    done = host.docker("config", "create", name, "-", input=name, check=False)
    return "" if done.status == 0 else done.output


def test_managers_share_the_store(site: Swarm, etcd: SiteEtcd) -> None:
    assert etcd.ctl("get", "x", identified=False).status
    assert not any(host.find("etcd") for host in site.hosts)
    first, second = site.managers
    assert sorted(row["ManagerStatus"] for row in nodes(second).values()) == ["Leader", "Reachable"]
    second.docker("service", "create", "-d", "--name", "web", "--replicas", "2", "--init", "busybox", "sleep", "1000")
    assert settles(lambda: count(site.hosts, "web") == 2)
    assert settles(lambda: agree(site.managers, "service"))
    first.docker("secret", "create", "hidden", "-", input="hidden-text")
    stored = etcd.ctl("get", "", "--prefix").output
    assert "web" in stored
    assert "hidden-text" not in stored


def test_another_manager_leads_when_one_is_killed(site: Swarm) -> None:
    former = leader(site.managers)
    (other,) = [host for host in site.managers if host is not former]
    former.kill("wharfd")
    assert settles(lambda: nodes(other)[other.name]["ManagerStatus"] == "Leader")
    assert settles(lambda: _create(other, "by-the-other") == "")
    former.start()
    assert settles(lambda: agree(site.managers, "node") and agree(site.managers, "config"))
    assert {row["Status"] for row in nodes(other).values()} == {"Ready"}


def test_the_swarm_waits_for_the_store(site: Swarm, etcd: SiteEtcd) -> None:
    """Tasks run and lists are answered meanwhile; a manager that starts waits, too."""
    states = ["Running", "Running"]
    assert settles(
        lambda: [state for _, state in placed(site.first, "web")] == states and count(site.hosts, "web") == 2
    )
    etcd.stop()
    refused = site.hosts.each(lambda host: _create(host, "refused"))
    assert all(NO_LEADER in error for error in refused), refused
    first, second = site.managers
    assert len(nodes(first)) == 2
    assert count(site.hosts, "web") == 2
    second.kill("wharfd")
    second.start()
    assert NO_LEADER in second.docker("node", "ls", check=False).output
    etcd.start()
    assert settles(lambda: _create(second, "accepted") == "")
    assert settles(lambda: agree(site.managers, "config"))
    assert "refused" not in {name for _, name in listed(first, "config")}
    assert settles(lambda: count(site.hosts, "web") == 2)


def test_the_store_has_one_swarm_until_its_last_manager_leaves(site: Swarm, etcd: SiteEtcd) -> None:
    first, second = site.managers
    second.docker("swarm", "leave", "--force")
    assert settles(lambda: nodes(first)[second.name]["Status"] == "Down")
    init = ("swarm", "init", "--advertise-addr", second.address)
    refused = second.docker(*init, check=False)
    assert f"the etcd {etcd.url} of --swarm-store has the state of a swarm" in refused.output
    assert info(second)["LocalNodeState"] == "inactive"
    assert settles(lambda: count([first], "web") == 2)
    first.docker("swarm", "leave", "--force")
    assert etcd.ctl("get", "", "--prefix", "--keys-only").stdout.split() == []
    second.docker(*init)
    assert [name for name, row in nodes(second).items() if row["ManagerStatus"]] == [second.name]
    assert listed(second, "service") == []
    second.docker("swarm", "leave", "--force")


def test_a_join_goes_on_until_the_swarm_can_admit_the_node(site: Swarm, etcd: SiteEtcd) -> None:
    first, second = site.managers
    first.docker("swarm", "init", "--advertise-addr", first.address, "--dispatcher-heartbeat", "1s")
    token = first.docker("swarm", "join-token", "-q", "manager").stdout.strip()
    join = ("swarm", "join", "--token", token, f"{first.address}:{PORT}")
    etcd.stop()
    for _ in range(2):
        late = second.docker(*join, check=False)
        assert "The attempt to join the swarm will continue in the background." in late.output
        assert info(second)["LocalNodeState"] == "pending"
        assert ALREADY in second.docker(*join, check=False).output
        second.docker("swarm", "leave")
        assert info(second)["LocalNodeState"] == "inactive"
    second.docker(*join, check=False)
    second.restart()
    assert info(second)["LocalNodeState"] == "pending"
    etcd.start()
    # A join whose client left while etcd was stopped may have stored its node; such a node never becomes Ready.
    assert settles(
        lambda: sorted(row[-1] for row in listed(second, "node") if "Ready" in row) == ["Leader", "Reachable"]
    )
    for host in (second, first):
        host.docker("swarm", "leave", "--force")


def test_an_init_without_the_store(site: Swarm, etcd: SiteEtcd) -> None:
    etcd.stop()
    refused = site.first.docker("swarm", "init", "--advertise-addr", site.first.address, check=False)
    assert f"the etcd {etcd.url} of --swarm-store does not answer this engine" in refused.output
    assert info(site.first)["LocalNodeState"] == "inactive"
