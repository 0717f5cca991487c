"""Where the OCI runtime spec has a field of a request as it is (opencontainers/runtime-spec, ``config.md``).

:class:`Oci` stands in ``Annotated[...]`` beside the field; ``server.containers.spec.simple`` writes the spec from it. A
value that the spec has in another form (devices, namespaces, capabilities) has no mark and code of its own in
``server.containers.spec``.
"""

from collections.abc import Callable
from dataclasses import dataclass


def given(value: object) -> bool:
    """Neither zero nor empty: zero means "not limited" or "not asked for"."""
    return bool(value)


def positive(value: object) -> bool:
    """For fields that have other words than zero for "not limited", such as -1."""
    return isinstance(value, int) and value > 0


def not_negative(value: object) -> bool:
    """For fields in which zero is a value and None is "not given"."""
    return isinstance(value, int) and value >= 0


def always(value: object) -> bool:
    """For properties that the spec always has."""
    return True


@dataclass(frozen=True, slots=True)
class Oci:
    """``path``: names of properties from the spec's root, with dots between. ``when``: which values are written.
    ``cgroup_v1``: cgroup v2 has no such file, and a runtime would refuse the property there."""

    path: str
    when: Callable[[object], bool] = given
    cgroup_v1: bool = False
