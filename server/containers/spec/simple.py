"""The fields that the OCI spec has as the request has them: one walk over the ``Oci`` marks of a record's fields."""

from collections.abc import Mapping
from typing import get_args, get_type_hints

from api_models.container import HostConfig
from api_models.oci import Oci
from api_models.resources import Resources

Json = dict[str, object]


def section(document: Json, name: str) -> Json:
    """The object ``name`` inside ``document``, made where it is missing."""
    found = document.setdefault(name, {})
    assert isinstance(found, dict)
    return found


Row = tuple[str, tuple[str, ...], str, Oci]


def _rows(kind: type[Resources]) -> tuple[Row, ...]:
    """(attribute, the objects around the property, its name, the mark) of each marked field, in declared order."""
    found = []
    for attribute, hint in get_type_hints(kind, include_extras=True).items():
        for mark in get_args(hint)[1:]:
            if isinstance(mark, Oci):
                *around, name = mark.path.split(".")
                found.append((attribute, tuple(around), name, mark))
    return tuple(found)


#: Of a container, and of an update.
_ROWS: dict[type[Resources], tuple[Row, ...]] = {kind: _rows(kind) for kind in (HostConfig, Resources)}


def write(spec: Json, record: Resources, *, cgroup_v2: bool) -> None:
    """Writes the marked fields of ``record``, a HostConfig or the Resources of an update, into ``spec``."""
    for attribute, around, name, mark in _ROWS[type(record)]:
        value: object = getattr(record, attribute)
        if not mark.when(value) or (cgroup_v2 and mark.cgroup_v1):
            continue
        target = spec
        for each in around:
            target = section(target, each)
        target[name] = dict(value) if isinstance(value, Mapping) else value
