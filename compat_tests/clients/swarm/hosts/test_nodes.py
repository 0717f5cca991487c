"""Nodes of a swarm of several hosts: the lists, what workers refuse, promote, demote, drain, leave and rm."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import PORT, Swarm, agree, info, leader, nodes, placed, running, settles

#: Seconds after which a node without heartbeats counts as down: three of ``HEARTBEAT``.
LEASE = 3.0
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this"
    " command on a manager node or promote the current node to a manager."
)
NETWORK = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and'
    " try again."
)
MULTI_HOST = "Cannot create a multi-host network from a worker node. Please create the network from a manager node."
ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'


def test_each_manager_shows_all_nodes(swarm: Swarm) -> None:
    names = [host.name for host in swarm.hosts]
    for host in swarm.managers:
        found = nodes(host)
        assert sorted(found) == names
        assert {row["Status"] for row in found.values()} == {"Ready"}
        assert [found[name]["ManagerStatus"] for name in names] == ["Leader", "Reachable", "Reachable", "", ""]
        assert [name for name in names if found[name]["Self"]] == [host.name]
    assert agree(swarm.managers, "node")


def test_info(swarm: Swarm) -> None:
    addresses = sorted(f"{host.address}:{PORT}" for host in swarm.managers)
    for host in swarm.hosts:
        found = info(host)
        manager = host in swarm.managers
        assert (found["LocalNodeState"], found["ControlAvailable"]) == ("active", manager)
        assert found["NodeAddr"] == host.address
        assert sorted(each["Addr"] for each in found["RemoteManagers"]) == addresses
        if manager:
            assert (found["Managers"], found["Nodes"]) == (3, 5)
        shown = host.docker("info").stdout
        assert f"Is Manager: {str(manager).lower()}" in shown


@pytest.mark.parametrize(
    "command",
    [
        ("node", "ls"),
        ("service", "ls"),
        ("service", "create", "busybox"),
        ("secret", "ls"),
        ("config", "ls"),
        ("swarm", "join-token", "worker"),
        ("swarm", "update", "--task-history-limit", "3"),
        ("swarm", "unlock-key"),
    ],
)
def test_a_worker_refuses(swarm: Swarm, command: tuple[str, ...]) -> None:
    refused = swarm.workers[0].docker(*command, check=False)
    assert refused.status == 1
    assert WORKER in refused.output


def test_a_worker_makes_no_networks_of_the_swarm(swarm: Swarm) -> None:
    def refusal(**options: str) -> tuple[int, str]:
        return swarm.workers[0].api.post("/networks/create", {"Name": "refused", **options}).error

    assert refusal(Driver="overlay") == (403, NETWORK)
    assert refusal(Driver="bridge", Scope="swarm") == (403, MULTI_HOST)


def test_joins_are_refused(swarm: Swarm) -> None:
    token = swarm.first.docker("swarm", "join-token", "-q", "worker").stdout.strip()
    remote = f"{swarm.first.address}:{PORT}"
    assert ALREADY in swarm.workers[0].docker("swarm", "join", "--token", token, remote, check=False).output
    worker = swarm.workers[1]
    worker.docker("swarm", "leave")
    wrong = f"{token[:-5]}aaaaa"
    refused = worker.docker("swarm", "join", "--token", wrong, remote, check=False)
    assert "A valid join token is necessary to join this cluster" in refused.output
    assert info(worker)["LocalNodeState"] == "inactive"
    swarm.rejoin(worker, "worker")
    assert settles(lambda: nodes(swarm.first)[worker.name]["Status"] == "Ready")


def test_promote_and_demote(swarm: Swarm) -> None:
    worker = swarm.workers[0]
    assert swarm.first.docker("node", "promote", worker.name).stdout == (
        f"Node {worker.name} promoted to a manager in the swarm.\n"
    )
    assert settles(lambda: nodes(worker)[worker.name]["ManagerStatus"] == "Reachable")
    assert settles(lambda: agree([*swarm.managers, worker], "node"))
    worker.docker("config", "create", "by-worker", "-", input="x")
    assert "by-worker" in swarm.first.docker("config", "ls").stdout
    assert worker.docker("node", "demote", worker.name).stdout == f"Manager {worker.name} demoted in the swarm.\n"
    assert settles(lambda: WORKER in worker.docker("node", "ls", check=False).output)
    assert nodes(swarm.first)[worker.name]["ManagerStatus"] == ""


def test_a_promotion_that_cannot_be_done_is_taken_back(swarm: Swarm, kind: str) -> None:
    if kind == "dockerd":
        pytest.skip("dockerd needs no etcd")
    worker = swarm.workers[0]
    worker.run_in_netns("mount", "--bind", "/dev/null", "/usr/bin/etcd")
    try:
        swarm.first.docker("node", "promote", worker.name)
        assert settles(lambda: "etcd-server is not installed" in info(worker)["Error"])
        assert nodes(swarm.first)[worker.name]["ManagerStatus"] == ""
        swarm.first.docker("node", "demote", worker.name)
        assert settles(lambda: not info(worker)["Error"])
    finally:
        worker.run_in_netns("umount", "/usr/bin/etcd")
    swarm.first.docker("node", "promote", worker.name)
    assert settles(lambda: nodes(worker)[worker.name]["ManagerStatus"] == "Reachable")
    swarm.first.docker("node", "demote", worker.name)
    assert settles(lambda: WORKER in worker.docker("node", "ls", check=False).output)


def test_a_join_that_fails_costs_no_quorum(swarm: Swarm, kind: str) -> None:
    """A port in use is noticed when the new manager has a vote."""
    worker = swarm.workers[1]
    worker.docker("swarm", "leave")
    occupy = f"import socket, time; s = socket.create_server(('0.0.0.0', {PORT})); time.sleep(60)"
    before = len(nodes(swarm.first))
    with subprocess.Popen([*worker.machine.enter, "/usr/bin/python3", "-c", occupy]) as occupying:
        assert settles(lambda: f":{PORT} " in worker.run_in_netns("ss", "-ltn").stdout)
        token = swarm.first.docker("swarm", "join-token", "-q", "manager").stdout.strip()
        failed = worker.docker("swarm", "join", "--token", token, f"{swarm.first.address}:{PORT}", check=False)
        occupying.kill()
    assert "address already in use" in failed.output
    assert info(worker)["LocalNodeState"] == "inactive"
    if kind == "wharf":
        assert [row["ManagerStatus"] for row in nodes(swarm.first).values()].count("Reachable") == 2
        assert len(nodes(swarm.first)) <= before + 1
    swarm.rejoin(worker, "worker")
    assert settles(lambda: nodes(swarm.first)[worker.name]["Status"] == "Ready")


def test_a_drained_node_runs_nothing(swarm: Swarm) -> None:
    worker = swarm.workers[0]
    swarm.first.docker(
        "service", "create", "-d", "--name", "web", "--replicas", "5", "--init", "busybox",
        "sleep", "1000",
    )  # fmt: skip
    assert settles(lambda: [state for _, state in placed(swarm.first, "web")] == ["Running"] * 5)
    assert {node for node, _ in placed(swarm.first, "web")} == {host.name for host in swarm.hosts}
    swarm.managers[1].docker("node", "update", "--availability", "drain", worker.name)
    try:
        assert settles(lambda: not running([worker], "web")[worker.name])
        assert settles(lambda: [state for _, state in placed(swarm.first, "web")] == ["Running"] * 5)
        assert worker.name not in {node for node, _ in placed(swarm.first, "web")}
    finally:
        swarm.first.docker("node", "update", "--availability", "active", worker.name)


def test_leave_and_rm(swarm: Swarm) -> None:
    worker = swarm.workers[1]
    refused = swarm.first.docker("node", "rm", worker.name, check=False)
    assert "is not down and can't be removed" in refused.output
    refused = swarm.managers[1].docker("swarm", "leave", check=False)
    assert "You are attempting to leave the swarm on a node that is participating as a manager." in refused.output
    assert worker.docker("swarm", "leave").stdout == "Node left the swarm.\n"
    assert info(worker)["LocalNodeState"] == "inactive"
    assert settles(lambda: nodes(swarm.first)[worker.name]["Status"] == "Down")
    assert swarm.managers[2].docker("node", "rm", worker.name).stdout == f"{worker.name}\n"
    assert settles(lambda: worker.name not in nodes(swarm.first))
    swarm.join(worker, "worker", through=swarm.managers[1])
    assert settles(lambda: nodes(swarm.first)[worker.name]["Status"] == "Ready")


def _other(swarm: Swarm, manager: Host) -> Host:
    return next(each for each in swarm.managers if each is not manager)


def _statuses(manager: Host, node: Host, seconds: float) -> set[str]:
    """All that ``docker node ls`` on a manager shows of a node in so many seconds."""
    found = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.add(nodes(manager)[node.name]["Status"])
        time.sleep(0.2)
    return found


@pytest.mark.parametrize("leads", [False, True])
def test_a_manager_whose_etcd_is_frozen_runs_tasks(swarm: Swarm, kind: str, leads: bool) -> None:
    """Its node follows the other managers. ``leads``: the manager is the leader before."""
    if kind == "dockerd":
        pytest.skip("dockerd has no etcd")
    leading = leader(swarm.managers)
    frozen, asked = (leading, _other(swarm, leading)) if leads else (_other(swarm, leading), leading)
    only = ("--constraint", f"node.hostname=={frozen.name}")
    asked.docker("service", "create", "-d", "--name", "old", *only, "--init", "busybox", "sleep", "1000")
    assert settles(lambda: placed(asked, "old") == [(frozen.name, "Running")])
    (container,) = running([frozen], "old")[frozen.name]
    (etcd,) = frozen.find("etcd")
    etcd.signal(signal.SIGSTOP)
    try:
        assert _statuses(asked, frozen, 4 * LEASE) == {"Ready"}
        assert nodes(asked)[frozen.name]["ManagerStatus"] == "Unreachable"
        asked.docker("service", "create", "-d", "--name", "new", *only, "--init", "busybox", "sleep", "1000")
        assert settles(lambda: placed(asked, "new") == [(frozen.name, "Running")])
        assert running([frozen], "old")[frozen.name] == [container]
        asked.docker("service", "rm", "new")
        assert settles(lambda: not running([frozen], "new")[frozen.name])
    finally:
        etcd.signal(signal.SIGCONT)
    assert settles(lambda: nodes(frozen)[frozen.name]["ManagerStatus"] in ("Reachable", "Leader"))
    assert _statuses(frozen, frozen, 2 * LEASE) == {"Ready"}
    assert running([frozen], "old")[frozen.name] == [container]
    assert settles(lambda: agree(swarm.managers, "node"))
