"""What lists and prunes of the build cache are about: containerd's filters over the fields of a record."""

from collections.abc import Sequence
from dataclasses import dataclass

from api_models.filters import Filters
from api_models.until import until_ns
from engine.api.filters import compile_all
from engine.common.errors import WharfError, invalid
from server.builder.cache.records import Record

# What ``POST /build/prune`` may be told. dockerd takes labels, too, and looks at none: it is the Engine API's prune of
# everything that sends them. ``parent`` fits nothing: BuildKit's records have ``parents``.
_FIELDS = ("id", "parent", "type", "description", "inuse", "shared", "private")
_KNOWN = (*_FIELDS, "until", "unused-for", "label", "label!")


@dataclass(frozen=True, slots=True)
class Usage:
    """A record and who needs it: a build that runs; ``shared``: an image has its layer."""

    record: Record
    in_use: bool
    shared: bool

    @property
    def mutable(self) -> bool:
        """Whether it may be written to: the directory of a mount, a client's files."""
        return self.record.kind != "regular"

    def field(self, path: Sequence[str]) -> str | None:
        """A field by the name that BuildKit's filters have for it."""
        record = self.record
        texts = {
            "id": record.id,
            "parents": ";".join(record.parents),
            "description": record.description,
            "type": record.kind,
        }
        flags = {
            "inuse": self.in_use,
            "mutable": self.mutable,
            "immutable": not self.mutable,
            "shared": self.shared,
            "private": not self.shared,
        }
        name = path[0]
        if name in flags:
            return "" if flags[name] else None
        return texts.get(name) or None


@dataclass(frozen=True, slots=True)
class Pruning:
    """What may go, and how much of it.

    ``everything``: also what images have. ``filters``: containerd's, of which one must fit. ``before_ns``: only what
    was last used before (0: all). ``keep_bytes``: as much may stay; ``most_bytes``: no more may stay; ``free_bytes``:
    until the disk has so much left.
    """

    everything: bool = False
    filters: Sequence[str] = ()
    before_ns: int = 0
    keep_bytes: int = 0
    most_bytes: int = 0
    free_bytes: int = 0


def chosen(usage: Sequence[Usage], filters: Sequence[str], what: str) -> list[Usage]:
    """Those that fit. ``what``: who gave the filters.

    :raises WharfError: INVALID_ARGUMENT: they can't be read.
    """
    try:
        fits = compile_all(filters)
    except WharfError as error:
        shown = " ".join(filters)
        raise invalid(f"failed to parse {what} filters [{shown}]: {error.message}: invalid argument") from None
    return [item for item in usage if fits(item.field)]


def read_filters(filters: Filters) -> tuple[list[str], int]:
    """The ``filters`` of ``POST /build/prune`` as containerd's, and since when a record may not have been used.

    :raises WharfError: INVALID_ARGUMENT, in dockerd's words.
    """
    filters.validate(_KNOWN)
    key = "unused-for" if "unused-for" in filters else "until"
    if "until" in filters and "unused-for" in filters:
        raise invalid('conflicting filters: "until" and "unused-for"')
    if any(len(filters.get(name)) > 1 for name in (key, *_FIELDS)):
        raise invalid("filters expect only one value")
    try:
        before_ns = until_ns(Filters({"until": filters.get(key)}))
    except WharfError as error:
        raise invalid(f"\"{key}\" filter expects a duration (e.g., '24h') or a timestamp: {error.message}") from None
    selectors = []
    for name in _FIELDS:
        if name in filters:
            operator = "~=" if name == "id" else "=="
            selectors.append(operator.join((name, *filters.get(name))))
    return ([",".join(selectors)] if selectors else []), before_ns
