"""What is remembered of the size of a container's writable layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class LayerSize:
    """Of one container, for this daemon's life. Sizes are bytes; None: not known.

    ``parent`` is the snapshot below the container's own, "" where there is none; ``below`` what it and all below it
    take: they are committed and don't change while a container has them. ``own`` is the writable layer's size since
    something was last written. ``pristine``: nothing has been written since the layer was made.
    """

    parent: str | None = None
    below: int | None = None
    own: int | None = None
    pristine: bool = False
    _writers: int = 0
    _writes: int = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block may write into the layer: what was measured before or meanwhile doesn't count afterwards."""
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
        """Changes with everything that is written; None while something may be."""
        return None if self._writers else self._writes
