"""The filters of ``docker images`` and ``docker image prune``."""

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

from api_models.filters import Filters
from api_models.until import until_ns
from engine.api.types import ImageRecord
from engine.common import globs, limits
from engine.common.errors import WharfError, invalid
from server.images.context import ImageContext
from server.images.model import is_dangling, reference_of
from server.images.timestamps import parse_ns
from server.images.trees import Tree
from server.registry.reference import Reference

LIST_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})

# The characters that make a path.Match pattern more than a plain name.
_SPECIAL = re.compile(r"[*?\[\\]")

#: Returns those records that match, in the same order.
Selector = Callable[[Iterable[ImageRecord]], Awaitable[list[ImageRecord]]]


# The most patterns of a request.
@lru_cache(maxsize=limits.GLOB_BYTES // 2)
def _glob(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of Go's path.Match: ``*`` and ``?`` do not match slashes.

    :raises WharfError: INVALID_ARGUMENT in Go's words.
    """
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            tokens.append(globs.STAR)
        elif char == "?":
            tokens.append("[^/]")
        elif char == "[":
            found, at = _class(pattern, at)
            tokens.append(found)
        else:
            char, at = _char(pattern, at - 1)
            tokens.append(re.escape(char))
    return globs.compiled(tokens)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Parse a bracket expression; return it and its end."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    first = True
    while first or not pattern.startswith("]", at):
        first = False
        if pattern.startswith(("-", "]"), at):
            raise _bad_pattern()
        low, at = _char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            if pattern.startswith(("-", "]"), at + 1):
                raise _bad_pattern()
            high, at = _char(pattern, at + 1)
        if low <= high:  # an empty range matches nothing
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return r"[\s\S]" if negated else "(?!)", at + 1
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _char(pattern: str, at: int) -> tuple[str, int]:
    """Parse one character, which may be escaped."""
    at += pattern.startswith("\\", at)
    if at >= len(pattern):
        raise _bad_pattern()
    return pattern[at], at + 1


def _bad_pattern() -> WharfError:
    return invalid("syntax error in pattern")


class ReferenceTest:
    """Matches references against several patterns.

    :raises WharfError: INVALID_ARGUMENT: the patterns other than plain names exceed ``limits.GLOB_BYTES``.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names = {pattern for pattern in patterns if not _SPECIAL.search(pattern)}
        self._patterns = [pattern for pattern in patterns if pattern not in self._names]
        if sum(map(len, self._patterns)) > limits.GLOB_BYTES:
            raise limits.exceeded("GLOB_BYTES", "the filter 'reference'")

    def fits(self, reference: Reference) -> bool:
        """Match by the familiar name with or without its tag, or by the canonical name.

        :raises WharfError: INVALID_ARGUMENT: a pattern before the matching one is malformed.
        """
        forms = (reference.familiar, reference.familiar_name, str(reference), reference.name)
        if not self._names.isdisjoint(forms):
            return True
        return any(_glob(pattern).fullmatch(form) for pattern in self._patterns for form in forms)


def _label_test(filters: Filters) -> Callable[[dict[str, str]], bool] | None:
    if "label" not in filters and "label!" not in filters:
        return None
    return filters.labelled


async def selector(context: ImageContext, filters: Filters, *, several: bool = False) -> Selector:
    """Return a function that selects records. ``before`` and ``since`` name existing images. ``several``: allow several
    ``until``.

    :raises WharfError: INVALID_ARGUMENT, NOT_FOUND.
    """

    async def bounds(name: str) -> list[int]:
        images = [await context.resolver.resolve(text) for text in filters.get(name)]
        return [at for image in images if (at := parse_ns(image.config.get("created"))) is not None]

    befores, sinces = await bounds("before"), await bounds("since")
    until = until_ns(filters, several=several)
    dangling = filters.flag("dangling", default=False) if "dangling" in filters else None
    references = ReferenceTest(filters.get("reference")) if filters.get("reference") else None
    labelled = _label_test(filters)

    def by_record(record: ImageRecord) -> bool:
        if dangling is not None and dangling != is_dangling(record):
            return False
        if references is not None:
            reference = reference_of(record)
            if reference is None or not references.fits(reference):
                return False
        return not (until and record.created_at_ns >= until)

    def by_documents(tree: Tree) -> bool:
        if befores or sinces:
            at = tree.best.created_ns if tree.best is not None else None
            if at is None or any(at >= b for b in befores) or any(at <= s for s in sinces):
                return False
        return labelled is None or any(labelled(dict(image.labels)) for image in tree.images)

    async def select(records: Iterable[ImageRecord]) -> list[ImageRecord]:
        found = [record for record in records if by_record(record)]
        if not (befores or sinces or labelled is not None):
            return found
        trees = await context.trees.get_all(record.target for record in found)
        return [record for record in found if by_documents(trees[record.target.digest])]

    return select
