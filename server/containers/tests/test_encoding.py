"""Encoded records: each is encoded once while it is kept, and only so many bytes are kept."""

import json
from dataclasses import replace

from api_models.container import HostConfig
from server.containers.encoding import Encoded


def test_a_record_is_encoded_once() -> None:
    encoded, record = Encoded(), HostConfig(memory=1 << 20)
    form = encoded.json(record)
    assert json.loads(form) == record.wire()
    assert encoded.json(record) is form


def test_a_changed_copy_is_encoded_anew() -> None:
    encoded, record = Encoded(), HostConfig(memory=1 << 20)
    encoded.json(record)
    assert json.loads(encoded.json(replace(record, memory=2 << 20)))["Memory"] == 2 << 20


def test_the_newest_are_kept() -> None:
    first, second = HostConfig(memory=1), HostConfig(memory=2)
    encoded = Encoded(kept=len(Encoded().json(first)) + 10)
    form = encoded.json(first)
    newer = encoded.json(second)
    assert encoded.json(second) is newer
    assert encoded.json(first) is not form


def test_one_larger_than_all_that_is_kept() -> None:
    encoded, record = Encoded(kept=10), HostConfig(memory=1)
    assert json.loads(encoded.json(record)) == record.wire()
    assert encoded.json(record) is not encoded.json(record)
