"""The filters of build cache listings and prunes: containerd's filter language over the fields of a record."""

from collections.abc import Sequence
from dataclasses import dataclass

from api_models.filters import Filters
from api_models.until import until_ns
from engine.api.filters import compile_all
from engine.common.errors import WharfError, invalid
from server.builder.cache.records import Record

# The filters of ``POST /build/prune``. dockerd also accepts labels and ignores them, because clients of ``system
# prune`` send the same filters to every prune. ``parent`` matches nothing: BuildKit's records have ``parents``.
_FIELDS = ("id", "parent", "type", "description", "inuse", "shared", "private")
_KNOWN = (*_FIELDS, "until", "unused-for", "label", "label!")


@dataclass(frozen=True, slots=True)
class Usage:
    """A record and its users. ``in_use``: a running build uses it; ``shared``: an image has its layer."""

    record: Record
    in_use: bool
    shared: bool

    @property
    def mutable(self) -> bool:
        """Whether its files may be modified: a cache mount or a client's files."""
        return self.record.kind != "regular"

    def field(self, path: Sequence[str]) -> str | None:
        """Return a field by its name in BuildKit's filters."""
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
class PruneOptions:
    """What a prune may remove, and how much of it.

    ``everything``: also records whose layers images use. ``filters``: containerd's, one must match. ``before_ns``: only
    records last used before that time (0: all). ``keep_bytes``: keep at least so much; ``most_bytes``: keep at most so
    much; ``free_bytes``: remove until so much of the disk is free.
    """

    everything: bool = False
    filters: Sequence[str] = ()
    before_ns: int = 0
    keep_bytes: int = 0
    most_bytes: int = 0
    free_bytes: int = 0


def matching(usage: Sequence[Usage], filters: Sequence[str], what: str) -> list[Usage]:
    """Return the matching records. ``what``: the request that has the filters, for the error.

    :raises WharfError: INVALID_ARGUMENT: the filters can't be parsed.
    """
    try:
        fits = compile_all(filters)
    except WharfError as error:
        shown = " ".join(filters)
        raise invalid(f"failed to parse {what} filters [{shown}]: {error.message}: invalid argument") from None
    return [item for item in usage if fits(item.field)]


def read_filters(filters: Filters) -> tuple[list[str], int]:
    """Convert the ``filters`` of ``POST /build/prune`` to containerd's, and to the time of last use.

    :raises WharfError: INVALID_ARGUMENT, with dockerd's sentences.
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
