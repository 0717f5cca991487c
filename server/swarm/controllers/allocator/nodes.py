"""The nodes' own addresses on the ingress network, from which their routing mesh connects to tasks on other nodes."""

from collections.abc import Sequence
from dataclasses import replace

from server.swarm.controllers.allocator.addresses import Addresses, Exhausted, usable
from server.swarm.controllers.draft import Draft
from server.swarm.model.objects import Network, Node
from server.swarm.state.state import Put
from server.swarm.store.interface import MAX_OPERATIONS


def allocate(draft: Draft, cursors: dict[str, int]) -> tuple[Sequence[Put], bool]:
    """The changes of nodes that have no address or a wrong one, at most ``MAX_OPERATIONS`` of them; and whether an
    address is missing because the network has none left. ``cursors``: see ``Addresses``.

    A node keeps its address as long as the network has it. A swarm of one node needs none.
    """
    ingress = draft.tables.ingress
    several = len(draft.tables.nodes) > 1
    addresses = Addresses(draft, cursors)
    changes: list[Put] = []
    missing = False
    for node in draft.tables.nodes:
        wanted = _kept(node, ingress)
        if not wanted and ingress is not None and several:
            try:
                wanted = addresses.allocate(ingress)
            except Exhausted:
                missing = True
        if wanted != node.ingress_address:
            changes.append(Put(replace(node, ingress_address=wanted, updated_ns=draft.now)))
            if len(changes) == MAX_OPERATIONS:
                break
    return changes, missing


def _kept(node: Node, ingress: Network | None) -> str:
    if ingress is None or not node.ingress_address or not usable(ingress, node.ingress_address):
        return ""
    return node.ingress_address
