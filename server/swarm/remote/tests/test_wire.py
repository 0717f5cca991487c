"""What is encoded for another node is decoded to the same."""

import random
from dataclasses import replace
from typing import Any

import pytest

from api_models.swarm.node import NodeDescription
from engine.common.errors import Kind, WharfError
from server.containers.logs.format import Query
from server.swarm.agent.dispatcher import Payload
from server.swarm.model.objects import TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote import wire
from server.swarm.remote.tests.values import any_record, sent


def test_statuses_payloads_descriptions_and_queries() -> None:
    dice = random.Random(5)
    statuses = {"t": replace(any_record(TaskStatus, dice), state=int(TaskState.RUNNING))}
    assert wire.statuses(sent(wire.statuses_document(statuses))) == statuses
    for payload in (Payload(bytes(range(256)), template=True), Payload(b"", template=False)):
        assert wire.payload(sent(wire.payload_document(payload))) == payload
    description = any_record(NodeDescription, dice)
    assert NodeDescription.parse(sent(description.wire())) == description
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
