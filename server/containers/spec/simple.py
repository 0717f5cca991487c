"""The fields that are copied unchanged from the request to the OCI spec, by the ``Oci`` marks of their declarations."""

from collections.abc import Mapping
from typing import get_args, get_type_hints

from api_models.container import HostConfig
from api_models.oci import Oci
from api_models.resources import Resources

Json = dict[str, object]


def section(document: Json, name: str) -> Json:
    """The object ``name`` in ``document``; adds it if it is missing."""
    found = document.setdefault(name, {})
    assert isinstance(found, dict)
    return found


Row = tuple[str, tuple[str, ...], str, Oci]


def _rows(kind: type[Resources]) -> tuple[Row, ...]:
    """(attribute, names of the objects around the property, its name, the mark) of each marked field, in order."""
    found = []
    for attribute, hint in get_type_hints(kind, include_extras=True).items():
        for mark in get_args(hint)[1:]:
            if isinstance(mark, Oci):
                *objects, name = mark.path.split(".")
                found.append((attribute, tuple(objects), name, mark))
    return tuple(found)


#: For a container (HostConfig) and for an update (Resources).
_ROWS: dict[type[Resources], tuple[Row, ...]] = {kind: _rows(kind) for kind in (HostConfig, Resources)}


def write(spec: Json, record: Resources, *, cgroup_v2: bool) -> None:
    """Writes the marked fields of ``record``, a HostConfig or the Resources of an update, into ``spec``."""
    for attribute, objects, name, mark in _ROWS[type(record)]:
        value: object = getattr(record, attribute)
        if not mark.when(value) or (cgroup_v2 and mark.cgroup_v1):
            continue
        target = spec
        for each in objects:
            target = section(target, each)
        target[name] = dict(value) if isinstance(value, Mapping) else value
