"""/nodes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api_models.swarm.node import NodeDescription, NodeSpec, NodeStatus
from server.swarm.model.objects import Node, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put
from server.tests.daemon import Daemon

NODE = "node00000000000000000wrk1"


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[Daemon]:
    daemon.post("/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
    yield daemon
    daemon.post("/swarm/leave", force=1)


def _add_worker(daemon: Daemon, state: str) -> None:
    """Another node of the swarm, as if it had joined."""
    node = Node(
        id=NODE,
        spec=NodeSpec(role="worker", availability="active", labels={"disk": "ssd"}),
        description=NodeDescription(hostname="worker"),
        status=NodeStatus(state=state),
    )
    task = Task(id="t1", node_id=NODE, status=TaskStatus(state=int(TaskState.RUNNING)))
    daemon.wait(daemon.services.swarm.manager().state.commit([Put(node), Put(task)]))


def _ids(daemon: Daemon, filters: str) -> list[str]:
    return [node["ID"] for node in daemon.get("/nodes", filters=filters).json()]


def test_a_node_is_found_by_id_name_and_prefix(manager: Daemon) -> None:
    (node,) = manager.get("/nodes").json()
    assert node["Spec"] == {"Labels": {}, "Role": "manager", "Availability": "active"}
    assert node["Status"] == {"State": "ready", "Addr": "192.0.2.1"}
    assert node["Description"]["TLSInfo"] == manager.get("/swarm").json()["TLSInfo"]
    hostname = node["Description"]["Hostname"]
    for key in (node["ID"], hostname, hostname.upper(), node["ID"][:10], "self"):
        assert manager.get(f"/nodes/{key}").json() == node
    assert manager.refusal("GET", "/nodes/nope") == (404, "node nope not found")


def test_filters(manager: Daemon) -> None:
    _add_worker(manager, "down")
    mine = manager.get("/nodes/self").json()["ID"]
    for filters, found in (
        ('{"role":["worker"]}', [NODE]),
        ('{"role":["manager"]}', [mine]),
        ('{"name":["work"]}', [NODE]),
        ('{"id":["node0"]}', [NODE]),
        ('{"node.label":["disk"]}', [NODE]),
        ('{"node.label":["disk=hdd"]}', []),
        ('{"label":["disk"]}', []),
        ('{"membership":["accepted"]}', sorted((mine, NODE))),
        ('{"membership":["pending"]}', []),
        ("", sorted((mine, NODE))),
    ):
        assert _ids(manager, filters) == found, filters
    for filters, sentence in (
        ('{"role":["x"]}', "Invalid role filter: 'x'"),
        ('{"membership":["x"]}', "Invalid membership filter: 'x'"),
        ('{"nope":["x"]}', "invalid filter 'nope'"),
    ):
        assert manager.refusal("GET", "/nodes", params={"filters": filters}) == (400, sentence)


def test_update(manager: Daemon) -> None:
    node = manager.get("/nodes/self").json()
    spec = {"Role": "manager", "Availability": "DRAIN", "Labels": {"a": "b"}, "Name": "first"}
    answer = manager.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
    assert answer.status_code == 200
    changed = manager.get(f"/nodes/{node['ID']}").json()
    assert changed["Spec"] == {**spec, "Availability": "drain"}
    assert changed["Version"]["Index"] > node["Version"]["Index"]
    (event,) = [each for each in manager.events(type=["node"]) if "availability.new" in each["Actor"]["Attributes"]]
    assert event["Actor"] == {
        "ID": node["ID"],
        "Attributes": {"name": "first", "availability.old": "active", "availability.new": "drain"},
    }


@pytest.mark.parametrize(
    ("query", "body", "status", "sentence"),
    [
        ({}, {}, 400, "invalid node version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        ({"version": 1}, {}, 400, 'invalid Role: ""'),
        ({"version": 1}, {"Role": "manager"}, 400, 'invalid Availability: ""'),
        (
            {"version": 1},
            {"Role": "manager", "Availability": "active"},
            409,
            "rpc error: code = Unknown desc = update out of sequence",
        ),
        (
            {"version": 1},
            {"Role": "worker", "Availability": "active"},
            400,
            "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
        ),
    ],
)
def test_updates_that_are_refused(
    manager: Daemon, query: dict[str, int], body: dict[str, Any], status: int, sentence: str
) -> None:
    assert manager.refusal("POST", "/nodes/self/update", params=query, json=body) == (status, sentence)
    assert manager.refusal("POST", "/nodes/nope/update", params={"version": 1}, json=body)[0] in (400, 404)


def test_remove(manager: Daemon) -> None:
    mine = manager.get("/nodes/self").json()["ID"]
    assert manager.refusal("DELETE", f"/nodes/{mine}", params={"force": 1}) == (
        400,
        f"rpc error: code = FailedPrecondition desc = node {mine} is a cluster manager and is a member of the raft"
        " cluster. It must be demoted to worker before removal",
    )
    _add_worker(manager, "ready")
    assert manager.refusal("DELETE", "/nodes/worker") == (
        400,
        f"rpc error: code = FailedPrecondition desc = node {NODE} is not down and can't be removed",
    )
    assert manager.request("DELETE", "/nodes/worker", params={"force": 1}).status_code == 200
    state = manager.services.swarm.manager().state
    task = state.tables.tasks.find("t1")
    assert task is None or task.state is TaskState.ORPHANED
    assert manager.refusal("DELETE", "/nodes/worker") == (404, "node worker not found")
    assert [event["Action"] for event in manager.events(type=["node"])][-1] == "remove"


def test_a_node_that_is_down_is_removed_without_force(manager: Daemon) -> None:
    _add_worker(manager, "down")
    assert manager.delete(f"/nodes/{NODE}").status_code == 200
    assert len(manager.get("/nodes").json()) == 1


def test_two_nodes_of_one_name_are_ambiguous(manager: Daemon) -> None:
    state = manager.services.swarm.manager().state
    _add_worker(manager, "down")
    twin = replace(state.tables.nodes.get(NODE), id="twin", version=0)
    manager.wait(state.commit([Put(twin)]))
    assert manager.refusal("GET", "/nodes/worker") == (400, "node worker is ambiguous (2 matches found)")
    assert manager.get("/nodes/twin").status_code == 200
