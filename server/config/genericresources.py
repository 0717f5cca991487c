"""``--node-generic-resource``: resources of this node, which services of a swarm can reserve."""

import re
from collections.abc import Sequence
from typing import Any

from server.config.types import ConfigError

_NUMBER = re.compile(r"[+-]?[0-9]+")


def parse_generic_resources(terms: Sequence[str]) -> list[dict[str, Any]] | None:
    """``kind=value`` as objects of the API: a number of units, or one object for each named unit. None: there are none.

    :raises ConfigError: with SwarmKit's sentence.
    """
    kinds: dict[str, list[str]] = {}
    for term in terms:
        kind, found, value = term.partition("=")
        if not found or "=" in value:
            raise _error(f"incorrect term {term}, missing '=' or malformed expression")
        kinds.setdefault(kind.strip(), []).append(value.strip())
    resources: list[dict[str, Any]] = []
    for kind, values in kinds.items():
        numbers = [value for value in values if _NUMBER.fullmatch(value)]
        if len(values) == 1 and numbers:
            if int(values[0]) < 0:
                raise _error(f"cannot ask for negative resource {kind}")
            resources.append({"DiscreteResourceSpec": {"Kind": kind, "Value": int(values[0])}})
        elif numbers:
            raise _error(f"mixed discrete and named resources in expression '{kind}=[{' '.join(values)}]'")
        else:
            resources += [{"NamedResourceSpec": {"Kind": kind, "Value": value}} for value in values]
    return resources or None


def _error(reason: str) -> ConfigError:
    return ConfigError(f"could not parse GenericResource: {reason}")
