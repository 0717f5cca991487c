"""Which cache records a client's filters mean."""

from api_models.filters import Filters
from engine.build.cache import Record

#: What a prune may be told by ``filters``.
FILTERS = ("until", "unused-for", "id", "parents", "type", "description", "inuse", "shared", "private")


def fits(record: Record, filters: Filters, *, in_use: bool) -> bool:
    """Whether a record is one that the filters mean. Records belong to one build cache: all of them are private.

    A filter that isn't known fits nothing.
    """
    facts = {"id": record.id, "type": record.kind, "description": record.description}
    if any(key not in FILTERS for key in filters):
        return False
    if any(facts[key] not in filters.get(key) for key in facts if key in filters):
        return False
    if "parents" in filters and not set(record.parents) & set(filters.get("parents")):
        return False
    return ("inuse" not in filters or in_use) and "shared" not in filters
