"""What is encoded for another node is decoded to the same."""

import random
from dataclasses import fields, replace
from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from server.networks.overlay.model import Backend, MeshPort, Peer, ServiceAddresses, SwarmNetwork
from server.swarm.agent.dispatcher import Assignments
from server.swarm.model.objects import Task
from server.swarm.model.taskstate import TaskState
from server.swarm.remote.lines import EMPTY, Differences, apply
from server.swarm.remote.tests.values import any_record, sent

_NETWORK_ID = "n1"


def _assignments(dice: random.Random) -> Assignments:
    ids = [str(number) for number in range(6) if dice.random() < 0.6]
    network = SwarmNetwork(
        id=_NETWORK_ID,
        name="net",
        subnets=(("10.0.1.0/24", "10.0.1.1"),) * dice.randint(0, 2),
        vni=dice.randint(1, 9),
        driver=dice.choice(("overlay", "macvlan")),
        config_from=dice.choice(("", "config")),
        mtu=dice.choice((0, 1450)),
        internal=dice.random() < 0.5,
        attachable=dice.random() < 0.5,
        ingress=dice.random() < 0.5,
        labels=dice.choice((None, {"a": "b"})),
        options=dice.choice((None, {"c": "d"})),
        ipam_options=dice.choice((None, {"e": "f"})),
        created_ns=dice.randint(0, 2**62),
        local=dice.choice(("", "192.0.2.7")),
        port=dice.choice((4789, 4790)),
        node_address=dice.choice(("", "10.0.0.3/24")),
    )
    service = ServiceAddresses(
        service_id="s1",
        names=("web", "www"),
        virtual_ip=dice.choice(("", "10.0.1.2")),
        backends=tuple(Backend(f"web.{id}", f"10.0.1.{id}") for id in ids),
    )
    return Assignments(
        tasks={id: any_record(Task, dice) for id in ids},
        networks={id: replace(network, id=id) for id in ids},
        services={id: (service,) * dice.randint(0, 2) for id in ids},
        mesh=tuple(MeshPort("tcp", 8000 + int(id), 80, (f"10.0.0.{id}",)) for id in ids),
        peers={id: tuple(Peer(f"10.0.1.{each}", "192.0.2.8") for each in ids) for id in ids},
        nodes=dice.randint(1, 1000),
        keys=dice.choice((0, 7, 9)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_of_assignments_has_each_state(seed: int) -> None:
    dice = random.Random(seed)
    differences = Differences()
    old = received = EMPTY
    for _ in range(6):
        new = _assignments(dice)
        received = apply(received, sent(differences.line(old, new)))
        assert received == new
        old = new
    assert differences.line(old, old) == {}


def test_only_the_backends_that_change_are_sent() -> None:
    backends = tuple(Backend(f"web.{number}", f"10.0.1.{number}") for number in range(100))
    one, other = (ServiceAddresses(id, (id,), "10.0.2.2", backends) for id in ("s1", "s2"))
    old = replace(EMPTY, services={"n1": (one, other)}, mesh=(MeshPort("tcp", 80, 80, ("10.0.0.3", "10.0.0.4")),))
    changed = replace(one, backends=(Backend("web.200", "10.0.1.200"), *backends[:50], *backends[51:]))
    new = replace(old, services={"n1": (changed, other)}, mesh=(MeshPort("tcp", 80, 80, ("10.0.0.4",)),))
    line = sent(Differences().line(old, new))
    (at, service), *others = line["services"]["n1"]["new"]
    assert (at, others, service["backends"]["gone"], len(service["backends"]["new"])) == (0, [], [50], 1)
    assert line["mesh"]["new"][0][1]["backends"] == {"gone": [0], "new": []}
    assert apply(old, line) == new


def test_streams_share_what_is_encoded() -> None:
    differences = Differences()
    old = replace(EMPTY, peers={"n1": (Peer("10.0.1.3", "192.0.2.1"),)})
    new = replace(EMPTY, peers={"n1": (*old.peers["n1"], Peer("10.0.1.4", "192.0.2.1"))})
    first, second, late = (differences.line(each, new)["peers"]["n1"] for each in (old, old, EMPTY))
    assert first is second
    assert late is not first
    assert apply(EMPTY, sent(differences.line(EMPTY, new))) == new


def test_every_field_has_a_value_that_differs_from_its_default() -> None:
    """Else the test above would not see that a field is lost."""
    dice = random.Random(1)
    tasks = [any_record(Task, dice) for _ in range(8)]
    for field in fields(Task):
        assert any(getattr(task, field.name) != field.default for task in tasks), field.name
    networks = [network for _ in range(20) for network in _assignments(dice).networks.values()]
    for field in fields(SwarmNetwork):
        assert any(getattr(network, field.name) != field.default for network in networks), field.name


def test_members_of_a_newer_node_are_ignored() -> None:
    new = _assignments(random.Random(3))
    line = sent(Differences().line(EMPTY, new))
    line["future"] = 1
    for section in ("networks", "tasks"):
        for document in line[section].values():
            document["future"] = {"a": 1}
    for peers in line["peers"].values():
        for _, document in peers["new"]:
            document["future"] = 1
    assert apply(EMPTY, line) == new


def test_a_small_change_is_a_short_line() -> None:
    old = _assignments(random.Random(4))
    id, task = next(iter(old.tasks.items()))
    new = replace(old, tasks={**old.tasks, id: replace(task, desired_state=int(TaskState.SHUTDOWN))})
    assert {name: set(section) for name, section in Differences().line(old, new).items()} == {"tasks": {id}}


@pytest.mark.parametrize(
    "line",
    [
        {"tasks": 1},
        {"tasks": {"t": 5}},
        {"networks": {"n": {}}},
        {"mesh": 3},
        {"nodes": "many"},
        {"services": {"n": [{"names": 1}]}},
        {"services": {"n": {"gone": [], "new": [[0, {"service_id": "s", "former": True, "backends": {}}]]}}},
        {"peers": {"n": {"gone": [0], "new": []}}},
        {"peers": {"n": {"gone": [], "new": [[1, {"address": "10.0.1.3", "node": "192.0.2.1"}]]}}},
    ],
)
def test_malformed_lines_are_refused(line: dict[str, Any]) -> None:
    with pytest.raises(WharfError) as refused:
        apply(EMPTY, line)
    assert refused.value.kind is Kind.INVALID_ARGUMENT
