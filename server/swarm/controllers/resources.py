"""Generic resources: units that a node advertises by name or as a number, and that tasks reserve by number."""

from collections.abc import Iterable

from api_models.swarm.task import DiscreteResource, GenericResource, NamedResource


class Generic:
    """The generic resources of a node that are free."""

    def __init__(self, advertised: Iterable[GenericResource]) -> None:
        self._named: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}
        for resource in advertised:
            if (named := resource.named_resource_spec) is not None:
                self._named.setdefault(named.kind, []).append(named.value)
            elif (discrete := resource.discrete_resource_spec) is not None:
                self._numbers[discrete.kind] = self._numbers.get(discrete.kind, 0) + discrete.value

    def enough(self, reserved: Iterable[GenericResource]) -> bool:
        for resource in reserved:
            wanted = resource.discrete_resource_spec
            if wanted is None:
                return False
            free = len(self._named[wanted.kind]) if wanted.kind in self._named else self._numbers.get(wanted.kind, 0)
            if wanted.value > free:
                return False
        return True

    def has(self, claimed: Iterable[GenericResource]) -> bool:
        """Whether all units that a task has got are there."""
        for resource in claimed:
            named, discrete = resource.named_resource_spec, resource.discrete_resource_spec
            if named is not None and named.value not in self._named.get(named.kind, ()):
                return False
            if discrete is not None and discrete.value > self._numbers.get(discrete.kind, 0):
                return False
        return True

    def claim(self, reserved: Iterable[GenericResource]) -> tuple[GenericResource, ...]:
        """Takes what a task reserves, which is there; returns the units."""
        claimed: list[GenericResource] = []
        for resource in reserved:
            wanted = resource.discrete_resource_spec
            if wanted is None or wanted.value <= 0:
                continue
            units = self._named.get(wanted.kind)
            if units is None:
                claimed.append(
                    GenericResource(discrete_resource_spec=DiscreteResource(kind=wanted.kind, value=wanted.value))
                )
            else:
                claimed += (_named(wanted.kind, unit) for unit in units[: wanted.value])
        self.consume(claimed)
        return tuple(claimed)

    def consume(self, claimed: Iterable[GenericResource]) -> None:
        """Takes the units of a task. Those that the node no longer has are ignored."""
        for resource in claimed:
            if (named := resource.named_resource_spec) is not None:
                units = self._named.get(named.kind, [])
                if named.value in units:
                    units.remove(named.value)
            elif (discrete := resource.discrete_resource_spec) is not None:
                self._numbers[discrete.kind] = self._numbers.get(discrete.kind, 0) - discrete.value


def _named(kind: str, value: str) -> GenericResource:
    return GenericResource(named_resource_spec=NamedResource(kind=kind, value=value))
