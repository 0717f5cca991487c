"""The cached size of a container's writable layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class LayerSize:
    """The sizes of one container's layers, not stored. Sizes are bytes; None: unknown.

    ``parent``: the parent of the container's snapshot, "" if it has none. ``below``: the size of all parents, which are
    committed and so don't change. ``own``: the size of the writable layer, measured after the last write.
    ``pristine``: nothing has been written since the layer was made.
    """

    parent: str | None = None
    below: int | None = None
    own: int | None = None
    pristine: bool = False
    _writers: int = 0
    _writes: int = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block may write into the layer: discards sizes that were measured before or during the block."""
        self._writers += 1
        self._forget()
        try:
            yield
        finally:
            self._writers -= 1
            self._forget()

    def _forget(self) -> None:
        self._writes += 1
        self.own, self.pristine = None, False

    @property
    def stamp(self) -> int | None:
        """A number that changes with every write; None while something may write."""
        return None if self._writers else self._writes
