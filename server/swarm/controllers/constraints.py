"""Placement constraints: ``node.labels.disk == ssd``. Keys, values and sentences are SwarmKit's."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from server.swarm.model.objects import Node

_OPERATORS = ("==", "!=")
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."


@dataclass(frozen=True, slots=True)
class Constraint:
    """``key`` has ``value``, or, if ``negated``, has another one."""

    key: str
    value: str
    negated: bool

    def met_by(self, node: Node) -> bool:
        key = self.key.lower()
        if key == "node.ip":
            return self._address(node.status.addr)
        read = _READERS.get(key)
        actual = attribute(node, self.key) if read is None else read(node)
        if actual is None:
            return False
        return (actual.lower() == self.value.lower()) != self.negated

    def _address(self, address: str) -> bool:
        try:
            network = ip_network(self.value, strict=False)
        except ValueError:
            return False
        try:
            inside = ip_address(address) in network
        except ValueError:
            inside = False
        return inside != self.negated


def attribute(node: Node, key: str) -> str | None:
    """The label of a node, or of its engine, that ``key`` names; "" if it has none, None: the key names no label."""
    for prefix, labels in ((NODE_LABEL, node.spec.labels), (ENGINE_LABEL, node.description.engine.labels)):
        if len(key) > len(prefix) and key.lower().startswith(prefix):
            return (labels or {}).get(key[len(prefix) :], "")
    return None


_READERS: Mapping[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.description.hostname,
    "node.role": lambda node: node.spec.role,
    "node.platform.os": lambda node: node.description.platform.os,
    "node.platform.arch": lambda node: node.description.platform.architecture,
}


def parse_constraints(expressions: Iterable[str]) -> Sequence[Constraint]:
    """:raises ValueError: an expression is none, with SwarmKit's sentence."""
    return [_parse(expression) for expression in expressions]


@lru_cache(maxsize=1024)
def _parse(expression: str) -> Constraint:
    for operator in _OPERATORS:
        if operator in expression:
            key, value = (part.strip() for part in expression.split(operator, 1))
            if not _KEY.fullmatch(key):
                raise ValueError(f"key '{key}' is invalid")
            if not _VALUE.fullmatch(value):
                raise ValueError(f"value '{value}' is invalid")
            return Constraint(key, value, operator == "!=")
    raise ValueError(f"constraint expected one operator from {', '.join(_OPERATORS)}")


def node_matches(expressions: Sequence[str] | None, node: Node) -> bool:
    """Whether the node meets all constraints. Expressions that can't be parsed are no constraint: a service is checked
    when it is created."""
    if not expressions:
        return True
    try:
        constraints = parse_constraints(expressions)
    except ValueError:
        return True
    return all(constraint.met_by(node) for constraint in constraints)
