"""Stored objects are read as they were written, for each kind with all its fields."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import orjson
import pytest

from api_models.record import Record, layout_of
from server.swarm.files import read_record, write_record
from server.swarm.keys import Keys
from server.swarm.membership import Membership
from server.swarm.model.codec import KINDS, decode, encode
from server.swarm.model.objects import Object
from server.swarm.remote.identity import Certificate


def _sample(annotation: Any) -> Any:
    """A value of a field that is no default."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _sample(arguments[0])
    if origin in (Union, UnionType):
        return _sample(next(each for each in arguments if each is not NoneType))
    if origin is tuple:
        return (_sample(arguments[0]), _sample(arguments[0]))
    if origin is Mapping:
        return {"key": _sample(arguments[1])}
    if annotation is Any:
        return {"any": [1, None, "text"]}
    if issubclass(annotation, Record):
        return _filled(annotation)
    return {str: "ö", int: 7, bool: True, float: 0.5}[annotation]


def _filled(record: type[Record]) -> Any:
    return record(**{place.attribute: _sample(place.annotation) for place in layout_of(record)})


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_read_as_it_was_written(kind: str) -> None:
    cls = KINDS[kind]
    for item in (_filled(cls), cls()):
        stored: Object = replace(item, version=9)
        assert decode(cls, encode(stored), 9) == stored
        # The API's decoder reads the same.
        assert replace(cls.parse(orjson.loads(encode(stored))), version=9) == stored


@pytest.mark.parametrize("record", [Membership, Certificate])
def test_a_file_is_read_as_it_was_written(record: type[Record], tmp_path: Any) -> None:
    for item in (_filled(record), record()):
        write_record(tmp_path / "file", item)
        assert read_record(tmp_path / "file", record) == item


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b'{"Id": 1}',
        b'{"CreatedNs": "1"}',
        b'{"CreatedNs": true}',
        b'{"Spec": []}',
        b'{"Spec": {"Labels": []}}',
        b'{"Status": {"State": {}}}',
        b'{"Description": {"Engine": {"Plugins": {}}}}',
    ],
)
def test_a_damaged_object_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError, match="instead of"):
        decode(KINDS["node"], document, 1)


def test_what_a_later_version_has_written_is_ignored() -> None:
    assert decode(KINDS["leader"], b'{"Id": "leader", "Later": {"A": 1}, "NodeId": null}', 3).id == "leader"


def test_a_swarm_is_read_without_models(tmp_path: Any) -> None:
    """Those of its first objects need 2 MiB."""
    Keys.create(tmp_path)
    write_record(tmp_path / "node", _filled(KINDS["node"]))
    code = (
        "import sys; from pathlib import Path; from api_models import record; from server.swarm.keys import Keys\n"
        "from server.swarm.files import read_record, write_record; from server.swarm.model import objects\n"
        "Keys.load(Path(sys.argv[1])); node = read_record(Path(sys.argv[1]) / 'node', objects.Node)\n"
        "write_record(Path(sys.argv[1]) / 'node', node)\n"
        "print(*record._derived)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
