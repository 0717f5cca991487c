"""The documents of the requests between nodes, as JSON.

Objects of the swarm have the form in which they are stored; other values have one member for each field. Members that
are not known come from a newer node and are ignored.

The assignments of a node come as a stream of lines: the first has all of them, and each other one what has changed
since the line before. Of each mapping, a line has the keys that are new or have another value; null: the key is
removed. ``mesh`` comes whole.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import orjson

from engine.common import jsontext
from engine.common.errors import WharfError, internal, invalid
from server.containers.logs.format import Query
from server.networks.overlay.model import Backend, MeshPort, OverlayNetwork, Peer, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments, Payload
from server.swarm.model.objects import Task, TaskStatus
from server.swarm.model.taskstate import TaskState

#: The version of the requests, in their path.
VERSION = "/v1"
#: The member of a line that ends a stream with an error.
ERROR = "error"
#: Seconds between two lines of a stream: an empty line comes when there is nothing to say. Without a line for
#: ``SILENCE`` seconds, the other side is gone.
SIGN_OF_LIFE, SILENCE = 4.0, 12.0
#: The most bytes of a request's body, and of one line or answer of a manager.
MAX_REQUEST, MAX_ANSWER = 1 << 20, 64 << 20
#: The most statuses of one report.
MAX_STATUSES = 2000

T = TypeVar("T")

EMPTY = Assignments(tasks={}, networks={}, services={}, mesh=())
_STATES = frozenset(int(state) for state in TaskState)


def load(data: bytes) -> dict[str, Any]:
    """:raises WharfError: INVALID_ARGUMENT: no JSON object."""
    try:
        document = jsontext.loads(data)
    except ValueError:
        raise invalid("the document is no JSON") from None
    if not isinstance(document, dict):
        raise invalid("the document is no JSON object")
    return document


def error_document(error: BaseException) -> dict[str, str]:
    """An error that is no WharfError is a defect: its text stays here."""
    if not isinstance(error, WharfError):
        error = internal("internal error")
    document = {"kind": error.kind.value, "message": error.message}
    return document if error.reason is None else {**document, "reason": error.reason.value}


# assignments


def difference(old: Assignments, new: Assignments) -> dict[str, Any]:
    """The line that makes the new assignments of the old ones, for orjson."""
    sections: dict[str, Any] = {
        "tasks": _changed(old.tasks, new.tasks, Task.wire),
        "networks": _changed(old.networks, new.networks, _same),
        "services": _changed(old.services, new.services, _same),
        "peers": _changed(old.peers, new.peers, _same),
    }
    line = {name: section for name, section in sections.items() if section}
    if old.mesh != new.mesh:
        line["mesh"] = new.mesh
    return line


def apply(old: Assignments, line: Mapping[str, Any]) -> Assignments:
    """The assignments after a line.

    :raises WharfError: INVALID_ARGUMENT: it is malformed.
    """
    try:
        return Assignments(
            tasks=_merged(old.tasks, line.get("tasks"), Task.parse),
            networks=_merged(old.networks, line.get("networks"), _network),
            services=_merged(old.services, line.get("services"), lambda each: tuple(map(_service, each))),
            mesh=tuple(map(_mesh, line["mesh"])) if "mesh" in line else old.mesh,
            peers=_merged(old.peers, line.get("peers"), lambda each: tuple(_known(Peer, peer) for peer in each)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise invalid(f"malformed assignments: {error}") from None


def _changed(old: Mapping[str, T], new: Mapping[str, T], encode: Callable[[T], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in new.items():
        former = old.get(key)
        if former is not value and former != value:
            found[key] = encode(value)
    found.update({key: None for key in old if key not in new})
    return found


def _merged(old: Mapping[str, T], changes: Mapping[str, Any] | None, decode: Callable[[Any], T]) -> Mapping[str, T]:
    if not changes:
        return old
    merged = dict(old)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = decode(value)
    return merged


def _same(value: object) -> object:
    """orjson encodes dataclasses and tuples."""
    return value


def _known(cls: Callable[..., T], document: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in document.items() if name in known})


def _network(document: Mapping[str, Any]) -> OverlayNetwork:
    subnets = tuple((subnet, gateway) for subnet, gateway in document["subnets"])
    return _known(OverlayNetwork, {**document, "subnets": subnets})


def _service(document: Mapping[str, Any]) -> ServiceAddresses:
    backends = tuple(_known(Backend, each) for each in document["backends"])
    return _known(ServiceAddresses, {**document, "names": tuple(document["names"]), "backends": backends})


def _mesh(document: Mapping[str, Any]) -> MeshPort:
    return _known(MeshPort, {**document, "backends": tuple(document["backends"])})


# the other methods of a dispatcher


def statuses_document(statuses: Mapping[str, TaskStatus]) -> dict[str, Any]:
    return {id: status.wire() for id, status in statuses.items()}


def statuses(document: Mapping[str, Any]) -> dict[str, TaskStatus]:
    """What a node reports of its tasks.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if len(document) > MAX_STATUSES:
        raise invalid(f"a report has more than {MAX_STATUSES} statuses")
    try:
        found = {id: TaskStatus.parse(each) for id, each in document.items()}
    except (ValueError, TypeError) as error:
        raise invalid(f"malformed status: {error}") from None
    if any(status.state not in _STATES for status in found.values()):
        raise invalid("a status has an unknown state")
    return found


def payload_document(payload: Payload) -> dict[str, Any]:
    return {"data": base64.b64encode(payload.data).decode(), "template": payload.template}


def payload(document: Mapping[str, Any]) -> Payload:
    """:raises WharfError: INVALID_ARGUMENT."""
    try:
        return Payload(base64.b64decode(document["data"], validate=True), template=bool(document["template"]))
    except (KeyError, TypeError, binascii.Error, ValueError):
        raise invalid("malformed payload") from None


def query_text(query: Query) -> str:
    """The query of a log, for the query of a URL."""
    document = {field.name: getattr(query, field.name) for field in fields(query)}
    document["json"] = None if query.json is None else query.json.decode("latin-1")
    return orjson.dumps(document).decode()


def query(text: str) -> Query:
    """:raises WharfError: INVALID_ARGUMENT."""
    document = load(text.encode())
    example = Query()
    for name, value in document.items():
        default = getattr(example, name, None)
        if name != "json" and default is not None and type(value) is not type(default):
            raise invalid(f"malformed query of a log: {name}")
    prefix = document.get("json")
    if prefix is not None and not isinstance(prefix, str):
        raise invalid("malformed query of a log: json")
    return _known(Query, {**document, "json": None if prefix is None else prefix.encode("latin-1", "replace")})


def strings(document: Mapping[str, Any], *names: str, length: int = 256) -> list[str]:
    """Members that are strings of at most ``length`` characters; a missing one is "".

    :raises WharfError: INVALID_ARGUMENT.
    """
    found = [document.get(name, "") for name in names]
    for name, value in zip(names, found, strict=True):
        if not isinstance(value, str) or len(value) > length:
            raise invalid(f"malformed {name}")
    return found


def texts(value: object, *, most: int, length: int = 256) -> Sequence[str]:
    """An array of at most ``most`` strings.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if not isinstance(value, list) or len(value) > most:
        raise invalid("malformed list")
    if not all(isinstance(each, str) and len(each) <= length for each in value):
        raise invalid("malformed list")
    return value
