"""Encodes objects for the store. A key is ``<kind>/<id>``; ``names/<kind>/<name>`` has the id of the object with this
name, so that a commit can require that a name is free; so have ``names/subnet/<subnet>`` and ``names/vni/<number>``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from api_models.stored import restore
from server.swarm.model.objects import (
    Cluster,
    Config,
    Leader,
    Network,
    NetworkKeys,
    Node,
    NodeImages,
    Object,
    Secret,
    Service,
    Session,
    Task,
)

KINDS: Mapping[str, type[Object]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "task": Task,
    "secret": Secret,
    "config": Config,
    "network": Network,
    "networkkeys": NetworkKeys,
    "images": NodeImages,
    "session": Session,
    "leader": Leader,
}
#: The kinds of objects to which services and attached containers refer by id.
REFERENCED: tuple[type[Object], ...] = (Secret, Config, Network)
_KIND_OF: Mapping[type[Object], str] = {cls: kind for kind, cls in KINDS.items()}
#: The key prefix of all keys of Wharf's swarms: a site's etcd may have other users.
ROOT = "wharf/swarm/"
#: Written by each commit that stores references, and by each one that deletes an object of ``REFERENCED``. Each of them
#: requires that none of the other kind came in between: a reference to a missing object is never stored.
REFERRED, RELEASED = f"{ROOT}references/stored", f"{ROOT}references/deleted"

T = TypeVar("T", bound=Object)


def kind_of(cls: type[Object]) -> str:
    return _KIND_OF[cls]


def key_of(cls: type[Object], id: str) -> str:
    return f"{ROOT}{kind_of(cls)}/{id}"


def reservations(item: Object) -> Sequence[str]:
    """The keys that reserve what no other object may have: the name, and a network's subnets and VXLAN identifier. They
    don't change while the object exists."""
    if not isinstance(item, Service | Secret | Config | Network):
        return ()
    found = [f"{ROOT}names/{kind_of(type(item))}/{item.name}"]
    if isinstance(item, Network):
        found += [f"{ROOT}names/subnet/{pool.subnet}" for pool in item.ipam.config or ()]
        if item.vni:
            found.append(f"{ROOT}names/vni/{item.vni}")
    return found


def split(key: str) -> tuple[type[Object], str] | None:
    """The class and the id of a key; None: it is none of an object."""
    kind, _, id = key.removeprefix(ROOT).partition("/")
    cls = KINDS.get(kind)
    return None if cls is None else (cls, id)


def encode(item: Object) -> bytes:
    document = item.wire()
    del document["Version"]
    return orjson.dumps(document)


def decode(cls: type[T], value: bytes, revision: int) -> T:
    """:raises ValueError: the value is no object of this class."""
    return replace(restore(cls, orjson.loads(value)), version=revision)
