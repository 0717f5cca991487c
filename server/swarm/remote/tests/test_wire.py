"""What is encoded for another node is decoded to the same."""

import random
from dataclasses import fields, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import orjson
import pytest

from api_models.record import Record
from api_models.swarm.node import NodeDescription
from engine.common.errors import Kind, WharfError
from server.containers.logs.format import Query
from server.networks.overlay.model import Backend, MeshPort, OverlayNetwork, Peer, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments, Payload
from server.swarm.model.objects import Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote import wire

_NETWORK_ID = "n1"


def _value(annotation: Any, dice: random.Random) -> Any:
    """A value that is not the default of most fields."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value(arguments[0], dice)
    if origin in (Union, UnionType):
        return _value(next(each for each in arguments if each is not type(None)), dice)
    if origin is tuple:
        return tuple(_value(arguments[0], dice) for _ in range(dice.randint(1, 2)))
    if origin is not None:
        return {f"key{number}": _value(arguments[1], dice) for number in range(dice.randint(1, 2))}
    if annotation is str:
        return f"text {dice.randint(0, 999)} ä\n"
    if annotation is bool:
        return dice.random() < 0.5
    if annotation is int:
        return dice.randint(1, 1000)
    if annotation is float:
        return dice.random()
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return _record(annotation, dice)
    return {}


def _record(cls: type[Record], dice: random.Random) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{field.name: _value(hints[field.name], dice) for field in fields(cls)})  # type: ignore[arg-type]


def _assignments(dice: random.Random) -> Assignments:
    ids = [str(number) for number in range(6) if dice.random() < 0.6]
    network = OverlayNetwork(
        id=_NETWORK_ID,
        name="net",
        subnets=(("10.0.1.0/24", "10.0.1.1"),) * dice.randint(0, 2),
        vni=dice.randint(1, 9),
        mtu=dice.choice((0, 1450)),
        internal=dice.random() < 0.5,
        attachable=dice.random() < 0.5,
        ingress=dice.random() < 0.5,
        labels=dice.choice((None, {"a": "b"})),
        options=dice.choice((None, {"c": "d"})),
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
        tasks={id: _record(Task, dice) for id in ids},
        networks={id: replace(network, id=id) for id in ids},
        services={id: (service,) * dice.randint(0, 2) for id in ids},
        mesh=tuple(MeshPort("tcp", 8000 + int(id), 80, (f"10.0.0.{id}",)) for id in ids),
        peers={id: tuple(Peer(f"10.0.1.{each}", "192.0.2.8") for each in ids) for id in ids},
    )


def _sent(line: object) -> dict[str, Any]:
    return wire.load(orjson.dumps(line))


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_of_assignments_has_each_state(seed: int) -> None:
    dice = random.Random(seed)
    sent = received = wire.EMPTY
    for _ in range(6):
        new = _assignments(dice)
        received = wire.apply(received, _sent(wire.difference(sent, new)))
        assert received == new
        sent = new
    assert wire.difference(sent, sent) == {}


def test_every_field_has_a_value_that_differs_from_its_default() -> None:
    """Else the test above would not see that a field is lost."""
    dice = random.Random(1)
    tasks = [_record(Task, dice) for _ in range(8)]
    for field in fields(Task):
        assert any(getattr(task, field.name) != field.default for task in tasks), field.name
    networks = [network for _ in range(20) for network in _assignments(dice).networks.values()]
    for field in fields(OverlayNetwork):
        assert any(getattr(network, field.name) != field.default for network in networks), field.name


def test_members_of_a_newer_node_are_ignored() -> None:
    new = _assignments(random.Random(3))
    line = _sent(wire.difference(wire.EMPTY, new))
    line["future"] = 1
    for section in ("networks", "tasks"):
        for document in line[section].values():
            document["future"] = {"a": 1}
    for peers in line["peers"].values():
        for document in peers:
            document["future"] = 1
    assert wire.apply(wire.EMPTY, line) == new


def test_a_small_change_is_a_short_line() -> None:
    old = _assignments(random.Random(4))
    id, task = next(iter(old.tasks.items()))
    new = replace(old, tasks={**old.tasks, id: replace(task, desired_state=int(TaskState.SHUTDOWN))})
    assert {name: set(section) for name, section in wire.difference(old, new).items()} == {"tasks": {id}}


@pytest.mark.parametrize(
    "line",
    [{"tasks": 1}, {"tasks": {"t": 5}}, {"networks": {"n": {}}}, {"mesh": 3}, {"services": {"n": [{"names": 1}]}}],
)
def test_malformed_lines_are_refused(line: dict[str, Any]) -> None:
    with pytest.raises(WharfError) as refused:
        wire.apply(wire.EMPTY, line)
    assert refused.value.kind is Kind.INVALID_ARGUMENT


def test_statuses_payloads_descriptions_and_queries() -> None:
    dice = random.Random(5)
    statuses = {"t": replace(_record(TaskStatus, dice), state=int(TaskState.RUNNING))}
    assert wire.statuses(_sent(wire.statuses_document(statuses))) == statuses
    for payload in (Payload(bytes(range(256)), template=True), Payload(b"", template=False)):
        assert wire.payload(_sent(wire.payload_document(payload))) == payload
    description = _record(NodeDescription, dice)
    assert NodeDescription.parse(_sent(description.wire())) == description
    for query in (Query(), Query(tail=5, follow=True, json=b"\x1e\xff", attributes={"a": "b"}, since_ns=2**62)):
        assert wire.query(wire.query_text(query)) == query


@pytest.mark.parametrize(
    "document",
    [{"t": 1}, {"t": {"State": "x"}}, {"t": {"State": 5}}, {"t": {"State": 512, "Message": []}}],
)
def test_malformed_statuses_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(WharfError, match="status"):
        wire.statuses(document)


@pytest.mark.parametrize("text", ["", "[]", '{"tail": "x"}', '{"json": 1}', '{"attributes": 5}', '{"follow": 1}'])
def test_malformed_queries_are_refused(text: str) -> None:
    with pytest.raises(WharfError) as refused:
        wire.query(text)
    assert refused.value.kind is Kind.INVALID_ARGUMENT
