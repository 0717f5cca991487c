"""The documents of the requests between nodes, as JSON.

Objects of the swarm have the form in which they are stored; other values have one member for each field. Members that
are not known come from a newer node and are ignored.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from ipaddress import ip_address
from typing import Any, TypeVar

import orjson

from engine.common import jsontext
from engine.common.errors import WharfError, internal, invalid
from server.containers.logs.format import Query
from server.networks.overlay.model import Keyring
from server.swarm.agent.dispatcher import NodeAddress, Payload
from server.swarm.model.objects import TaskStatus
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
#: The most nodes that are asked for an image.
MAX_PEERS = 16

T = TypeVar("T")

_KEYS = tuple(field.name for field in fields(Keyring))
_STATES = frozenset(int(state) for state in TaskState)


def load(data: bytes) -> dict[str, Any]:
    """:raises WharfError: INVALID_ARGUMENT: no JSON object."""
    return jsontext.load_object(data, "the document")


def error_document(error: BaseException) -> dict[str, str]:
    """An error that is no WharfError is a defect: its text stays here."""
    if not isinstance(error, WharfError):
        error = internal("internal error")
    document = {"kind": error.kind.value, "message": error.message}
    return document if error.reason is None else {**document, "reason": error.reason.value}


# the methods of a dispatcher; its assignments are in ``lines``


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


def keyring_document(keys: Keyring) -> dict[str, Any]:
    return {name: base64.b64encode(getattr(keys, name)).decode() for name in _KEYS}


def keyring(document: Mapping[str, Any]) -> Keyring:
    """:raises WharfError: INVALID_ARGUMENT."""
    try:
        return Keyring(*(base64.b64decode(document[name], validate=True) for name in _KEYS))
    except (KeyError, TypeError, binascii.Error, ValueError):
        raise invalid("malformed keys") from None


def peers_document(peers: Sequence[NodeAddress]) -> dict[str, Any]:
    return {"peers": peers}


def peers(document: Mapping[str, Any]) -> Sequence[NodeAddress]:
    """:raises WharfError: INVALID_ARGUMENT."""
    try:
        found = [known(NodeAddress, each) for each in document["peers"][:MAX_PEERS]]
        for each in found:
            ip_address(each.host)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise invalid("malformed peers") from None
    return found


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
    known = {name: value for name, value in document.items() if hasattr(example, name)}
    return Query(**{**known, "json": None if prefix is None else prefix.encode("latin-1", "replace")})


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


def known(cls: Callable[..., T], document: Mapping[str, Any]) -> T:
    """A record from the members of a document that it has as fields."""
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in document.items() if name in known})
