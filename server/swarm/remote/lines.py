"""The assignments of a node as a stream of lines of JSON: the first has all of them, and each other one what has
changed since the line before.

Of each mapping, a line has the keys that are new or have another value; null: the key is removed. The values of
``services`` and ``peers``, ``mesh``, and the backends in them are sequences. A sequence is sent as ``gone``, the
positions in the former one of the items that are not in the new one, and ``new``: pairs of the position of each other
item in the new one and the item. The other items keep their order. The backends of an item with the same key (a
service's id; a port's number and protocol) are sent in the same way.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from engine.common.errors import invalid
from server.networks.overlay.model import Backend, MeshPort, Peer, ServiceAddresses, SwarmNetwork
from server.swarm.agent.dispatcher import Assignments
from server.swarm.model.objects import Task
from server.swarm.remote import wire

T = TypeVar("T")

EMPTY = Assignments(tasks={}, networks={}, services={}, mesh=())
#: Of how many values, and of how many former values of each, the differences are kept.
_VALUES, _FORMER = 1024, 4


# managers


class Differences:
    """Makes lines. A manager has one for all of its streams: the difference between two values that nodes have in
    common, which are the same objects for all of them, is computed and encoded once."""

    def __init__(self) -> None:
        # By section and key: the newest value, and by the id of a former value this one, and the difference. The
        # objects are kept so that their ids remain theirs.
        self._made: dict[tuple[str, str], tuple[object, dict[int, tuple[object, orjson.Fragment]]]] = {}

    def line(self, old: Assignments, new: Assignments) -> dict[str, Any]:
        """The line that makes the new assignments of the old ones, for orjson; {}: they are equal."""
        sections: dict[str, Any] = {
            "tasks": _changed(old.tasks, new.tasks, lambda key, former, value: value.wire()),
            "networks": _changed(old.networks, new.networks, lambda key, former, value: value),
            "services": _changed(old.services, new.services, self._services),
            "peers": _changed(old.peers, new.peers, self._peers),
        }
        line = {name: section for name, section in sections.items() if section}
        if old.mesh is not new.mesh and old.mesh != new.mesh:
            line["mesh"] = self._encoded(("mesh", ""), old.mesh, new.mesh, _mesh_difference)
        if old.nodes != new.nodes:
            line["nodes"] = new.nodes
        if old.keys != new.keys:
            line["keys"] = new.keys
        return line

    def _services(self, key: str, old: Sequence[ServiceAddresses] | None, new: Sequence[ServiceAddresses]) -> object:
        return self._encoded(("services", key), old or (), new, _services_difference)

    def _peers(self, key: str, old: Sequence[Peer] | None, new: Sequence[Peer]) -> object:
        return self._encoded(("peers", key), old or (), new, _difference)

    def _encoded(
        self, key: tuple[str, str], old: Sequence[T], new: Sequence[T], make: Callable[[Sequence[T], Sequence[T]], Any]
    ) -> orjson.Fragment:
        value, made = self._made.get(key, (None, {}))
        if value is not new:
            made = {}
            self._made.pop(key, None)
            self._made[key] = new, made
            if len(self._made) > _VALUES:
                del self._made[next(iter(self._made))]
        if (found := made.get(id(old))) is None:
            if len(made) >= _FORMER:
                del made[next(iter(made))]
            found = made[id(old)] = old, orjson.Fragment(orjson.dumps(make(old, new)))
        return found[1]


def _changed(
    old: Mapping[str, T], new: Mapping[str, T], make: Callable[[str, T | None, T], object]
) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in new.items():
        former = old.get(key)
        if former is not value and former != value:
            found[key] = make(key, former, value)
    found.update({key: None for key in old if key not in new})
    return found


def _difference(
    old: Sequence[T],
    new: Sequence[T],
    key: Callable[[T], Hashable] = lambda item: item,
    encode: Callable[[T | None, T], object] = lambda former, item: item,
) -> dict[str, object]:
    """``encode`` gets the former item with the same key, too."""
    before, after = {key(item): item for item in old}, {key(item): item for item in new}
    kept = [item for item in old if after.get(key(item)) == item]
    if len(before) < len(old) or len(after) < len(new) or kept != [x for x in new if before.get(key(x)) == x]:
        # An item is there twice, or the order is another one: all items are sent.
        return {"gone": list(range(len(old))), "new": [[at, encode(None, item)] for at, item in enumerate(new)]}
    return {
        "gone": [at for at, item in enumerate(old) if after.get(key(item)) != item],
        "new": [
            [at, encode(before.get(key(item)), item)] for at, item in enumerate(new) if before.get(key(item)) != item
        ],
    }


def _services_difference(old: Sequence[ServiceAddresses], new: Sequence[ServiceAddresses]) -> dict[str, object]:
    def encode(former: ServiceAddresses | None, service: ServiceAddresses) -> object:
        backends = _difference(former.backends if former is not None else (), service.backends)
        return {
            "service_id": service.service_id,
            "names": service.names,
            "virtual_ip": service.virtual_ip,
            "former": former is not None,
            "backends": backends,
        }

    return _difference(old, new, lambda service: service.service_id, encode)


def _mesh_difference(old: Sequence[MeshPort], new: Sequence[MeshPort]) -> dict[str, object]:
    def encode(former: MeshPort | None, port: MeshPort) -> object:
        return {
            "protocol": port.protocol,
            "published": port.published,
            "target": port.target,
            "former": former is not None,
            "backends": _difference(former.backends if former is not None else (), port.backends),
        }

    return _difference(old, new, _port_key, encode)


def _port_key(port: MeshPort) -> tuple[str, int]:
    return port.protocol, port.published


# nodes


def apply(old: Assignments, line: Mapping[str, Any]) -> Assignments:
    """The assignments after a line.

    :raises WharfError: INVALID_ARGUMENT: it is malformed.
    """
    try:
        return Assignments(
            tasks=_merged(old.tasks, line.get("tasks"), lambda former, each: Task.parse(each)),
            networks=_merged(old.networks, line.get("networks"), lambda former, each: _network(each)),
            services=_merged(old.services, line.get("services"), _services),
            mesh=_mesh(old.mesh, line["mesh"]) if "mesh" in line else old.mesh,
            peers=_merged(old.peers, line.get("peers"), _peers),
            nodes=int(line.get("nodes", old.nodes)),
            keys=int(line.get("keys", old.keys)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise invalid(f"malformed assignments: {error}") from None


def _merged(
    old: Mapping[str, T], changes: Mapping[str, Any] | None, decode: Callable[[T | None, Any], T]
) -> Mapping[str, T]:
    if not changes:
        return old
    merged = dict(old)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = decode(old.get(key), value)
    return merged


def _after(old: Sequence[T], difference: Mapping[str, Any], decode: Callable[[Any], T]) -> tuple[T, ...]:
    """The sequence after a difference. :raises ValueError: it has positions that don't exist."""
    gone = set(difference["gone"])
    added = {at: decode(item) for at, item in difference["new"]}
    size = len(old) - len(gone) + len(added)
    if not (gone <= set(range(len(old))) and added.keys() <= set(range(size))):
        raise ValueError("positions that don't exist")
    kept = iter([item for at, item in enumerate(old) if at not in gone])
    return tuple(added[at] if at in added else next(kept) for at in range(size))


def _services(old: Sequence[ServiceAddresses] | None, difference: Mapping[str, Any]) -> Sequence[ServiceAddresses]:
    before = {service.service_id: service.backends for service in old or ()}

    def decode(document: Mapping[str, Any]) -> ServiceAddresses:
        former = before[document["service_id"]] if document["former"] else ()
        backends = _after(former, document["backends"], lambda each: wire.known(Backend, each))
        return wire.known(ServiceAddresses, {**document, "names": tuple(document["names"]), "backends": backends})

    return _after(old or (), difference, decode)


def _mesh(old: Sequence[MeshPort], difference: Mapping[str, Any]) -> Sequence[MeshPort]:
    before = {_port_key(port): port.backends for port in old}

    def decode(document: Mapping[str, Any]) -> MeshPort:
        former = before[document["protocol"], document["published"]] if document["former"] else ()
        return wire.known(MeshPort, {**document, "backends": _after(former, document["backends"], str)})

    return _after(old, difference, decode)


def _peers(old: Sequence[Peer] | None, difference: Mapping[str, Any]) -> Sequence[Peer]:
    return _after(old or (), difference, lambda each: wire.known(Peer, each))


def _network(document: Mapping[str, Any]) -> SwarmNetwork:
    subnets = tuple((subnet, gateway) for subnet, gateway in document["subnets"])
    return wire.known(SwarmNetwork, {**document, "subnets": subnets})
