"""Nodes: list, inspect, update, remove. Sentences are SwarmKit's (manager/controlapi/node.go)."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api_models.filters import Filters
from api_models.swarm.node import NodeSpec
from engine.common.errors import WharfError, invalid
from server.swarm.model.lost import node_removed
from server.swarm.model.objects import Node, Task
from server.swarm.model.quorum import quorum_without
from server.swarm.operations import match
from server.swarm.operations.init import AVAILABILITIES
from server.swarm.operations.rpc import missing, out_of_sequence, precondition
from server.swarm.operations.show import show_node
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tables import ambiguous
from server.swarm.store.interface import MAX_OPERATIONS

_FILTERS = ("name", "id", "label", "role", "membership", "node.label")
_ROLES = ("worker", "manager")


class Nodes:
    """Call it while this node is a manager. Keys are ids, hostnames, ``self``, or prefixes of ids."""

    def __init__(self, state: State, own_id: str) -> None:
        self._state = state
        self._own_id = own_id

    def get(self, key: str) -> Node:
        """:raises WharfError: NOT_FOUND ``node x not found``; INVALID_ARGUMENT: ambiguous."""
        nodes = self._state.tables.nodes
        found = nodes.find(key)
        if found is not None:
            return found
        named = [node for node in nodes if node.description.hostname.lower() == key.lower()] if key else []
        if len(named) > 1:
            raise ambiguous(nodes.noun, key, len(named))
        if named:
            return named[0]
        return nodes.get(self._own_id if key == "self" else key)

    def inspect(self, key: str) -> dict[str, Any]:
        """:raises WharfError: as ``get``."""
        return show_node(self.get(key))

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """:raises WharfError: INVALID_ARGUMENT: a filter."""
        filters.validate(_FILTERS)
        for noun, values in (("role", _ROLES), ("membership", ("pending", "accepted"))):
            for value in filters.get(noun):
                if value and value.lower() not in values:
                    raise invalid(f"Invalid {noun} filter: '{value}'")
        roles = {value.lower() for value in filters.get("role") if value}
        memberships = {value.lower() for value in filters.get("membership") if value}
        return [
            show_node(node)
            for node in sorted(self._state.tables.nodes, key=lambda each: each.id)
            if match.prefixed(node.description.hostname, filters.get("name"))
            and match.prefixed(node.id, filters.get("id"))
            and match.labelled(node.description.engine.labels, filters.get("label"))
            and match.labelled(node.spec.labels, filters.get("node.label"))
            and (not roles or node.spec.role in roles)
            # Every node with a valid join token is accepted at once.
            and (not memberships or "accepted" in memberships)
        ]

    async def update(self, key: str, version: int, spec: NodeSpec) -> None:
        """Replaces labels, role and availability. ``version``: that of the node as the client read it.

        :raises WharfError: INVALID_ARGUMENT; NOT_FOUND; CONFLICT: another version.
        """
        role, availability = spec.role.lower(), spec.availability.lower()
        if role not in _ROLES:
            raise invalid(f'invalid Role: "{spec.role}"')
        if availability not in AVAILABILITIES:
            raise invalid(f'invalid Availability: "{spec.availability}"')
        id = self.get(key).id

        def build() -> Sequence[Put]:
            node = self._find(id)
            if node.spec.role == "manager" and role == "worker":
                self._check_demotion(node)
            if node.version != version:
                raise out_of_sequence()
            changed = replace(spec, role=role, availability=availability)
            return [Put(replace(node, spec=changed, updated_ns=time.time_ns()))]

        await self._state.transact(build)

    def _check_demotion(self, node: Node) -> None:
        """:raises WharfError: INVALID_ARGUMENT: managers would be lost."""
        if node.manager is None:
            return  # not a manager yet, and perhaps never: its machine may have no etcd
        managers = [each for each in self._state.tables.nodes if each.manager is not None]
        if [each.id for each in managers] == [node.id]:
            raise precondition("attempting to demote the last manager of the swarm")
        if not quorum_without(node, managers):
            raise precondition("can't remove member from the raft: this would result in a loss of quorum")

    async def remove(self, key: str, *, force: bool) -> None:
        """Removes a node; its tasks count as gone. ``force``: also one that is ready. A node that is not in the tables
        is not admitted any more.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: the node is a manager, or ready.
        """
        id = self.get(key).id
        # A transaction has a bound, so the tasks come first; a repetition continues.
        while _running(self._state, id):
            self._check_removal(id, force=force)
            await self._state.transact(lambda: _orphaned(self._state, id))

        def build() -> Sequence[Delete]:
            node = self._check_removal(id, force=force)
            tables = self._state.tables
            gone = (node, tables.sessions.find(id), tables.images.find(id))
            return [Delete(each) for each in gone if each is not None]

        await self._state.transact(build)

    def _check_removal(self, id: str, *, force: bool) -> Node:
        node = self._find(id)
        if node.spec.role == "manager" and node.manager is not None:
            raise precondition(
                f"node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker"
                " before removal"
            )
        if not force and node.status.state == "ready":
            raise precondition(f"node {id} is not down and can't be removed")
        return node

    def _find(self, id: str) -> Node:
        node = self._state.tables.nodes.find(id)
        if node is None:
            raise _gone(id)
        return node


def _running(state: State, node_id: str) -> list[Task]:
    return [task for task in state.tables.tasks.of_node(node_id) if not task.state.ended]


def _orphaned(state: State, node_id: str) -> list[Put]:
    """The running tasks of a removed node, as gone: at most as many as one transaction can have."""
    now = time.time_ns()
    return [Put(node_removed(task, now)) for task in _running(state, node_id)[:MAX_OPERATIONS]]


def _gone(id: str) -> WharfError:
    return missing(f"node {id} not found")
