"""Publishes the changes of the swarm's objects as events of ``GET /events``, whoever made them. Actions and attributes
are dockerd's (daemon/events.go)."""

from collections.abc import Mapping

from server.events.publisher import EventPublisher
from server.swarm.model.objects import Config, Network, Node, Object, Secret, Service
from server.swarm.state.state import Event, State

_KINDS: Mapping[type[Object], str] = {
    Node: "node",
    Service: "service",
    Secret: "secret",
    Config: "config",
    Network: "network",
}


class EventRelay:
    """A part of a manager. Make it before the first commit whose events are wanted."""

    def __init__(self, state: State, events: EventPublisher) -> None:
        self._changes = state.subscribe()
        self._events = events

    async def run(self) -> None:
        while True:
            for event in await self._changes.next():
                self._publish(event)

    def _publish(self, event: Event) -> None:
        kind = _KINDS.get(type(event.item))
        if kind is None:
            return
        action = "create" if event.old is None else "remove" if event.new is None else "update"
        self._events.publish(kind, action, event.item.id, _attributes(event), scope="swarm")


def _attributes(event: Event) -> dict[str, str]:
    item, old = event.item, event.old if event.new is not None else None
    if isinstance(item, Node):
        attributes = {"name": item.spec.name or item.description.hostname}
        if isinstance(old, Node):
            attributes |= _node_changes(old, item)
        return attributes
    assert isinstance(item, Service | Secret | Config | Network)
    attributes = {"name": item.name}
    if isinstance(item, Service) and isinstance(old, Service):
        attributes |= _service_changes(old, item)
    return attributes


def _node_changes(old: Node, new: Node) -> dict[str, str]:
    changes = _change("availability", old.spec.availability, new.spec.availability)
    changes |= _change("role", old.spec.role, new.spec.role)
    changes |= _change("state", old.status.state, new.status.state)
    if old.manager is not None and new.manager is not None:
        changes |= _change("leader", str(old.manager.leader).lower(), str(new.manager.leader).lower())
        changes |= _change("reachability", old.manager.reachability, new.manager.reachability)
    return changes


def _service_changes(old: Service, new: Service) -> dict[str, str]:
    changes: dict[str, str] = {}
    before, after = old.spec.task_template.container_spec, new.spec.task_template.container_spec
    if before is not None and after is not None:
        changes |= _change("image", before.image, after.image)
    if old.spec.mode.replicated is not None and new.spec.mode.replicated is not None:
        changes |= _change(
            "replicas", str(old.spec.mode.replicated.replicas or 0), str(new.spec.mode.replicated.replicas or 0)
        )
    if new.update_status is not None:
        state = new.update_status.state
        if old.update_status is None:
            changes["updatestate.new"] = state
        else:
            changes |= _change("updatestate", old.update_status.state, state)
    return changes


def _change(name: str, old: str, new: str) -> dict[str, str]:
    return {} if old == new else {f"{name}.old": old, f"{name}.new": new}
