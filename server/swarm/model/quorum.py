"""Whether the managers can decide without one of them."""

from collections.abc import Iterable

from server.swarm.model.objects import Node


def quorum_without(node: Node, managers: Iterable[Node]) -> bool:
    """Whether most of the other managers can be reached."""
    others = [each.manager for each in managers if each.id != node.id and each.manager is not None]
    reachable = sum(each.reachability == "reachable" for each in others)
    return reachable > len(others) // 2
