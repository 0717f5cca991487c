"""Where the OCI runtime spec has a field of a request unchanged (opencontainers/runtime-spec, ``config.md``).

:class:`Oci` is a mark in ``Annotated[...]`` of the field; ``server.containers.spec.simple`` writes the spec from it. A
value with another form in the spec (devices, namespaces, capabilities) has no mark, but code in
``server.containers.spec``.
"""

from collections.abc import Callable
from dataclasses import dataclass


def given(value: object) -> bool:
    """Neither zero nor empty: zero means "not limited" or "not given"."""
    return bool(value)


def positive(value: object) -> bool:
    """For fields in which another value than zero means "not limited", such as -1."""
    return isinstance(value, int) and value > 0


def not_negative(value: object) -> bool:
    """For fields in which zero is a value and None means "not given"."""
    return isinstance(value, int) and value >= 0


def always(value: object) -> bool:
    """For properties that the spec always has."""
    return True


@dataclass(frozen=True, slots=True)
class Oci:
    """``path``: property names from the spec's root, separated by dots. ``when``: which values are written.
    ``cgroup_v1``: the property exists for cgroup v1 only; with cgroup v2, a runtime would refuse it."""

    path: str
    when: Callable[[object], bool] = given
    cgroup_v1: bool = False
