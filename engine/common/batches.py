"""Values that concurrent callers compute together."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Batches(Generic[K, V]):
    """Computes the values of keys in batches, one batch after the other. Belongs to one event loop.

    A caller gets values that are computed after its call, so that they include all changes before it. It shares them
    with the callers that wait for the same keys: of any number of concurrent calls for a key, at most two computations
    result, the current one and the next one.
    """

    def __init__(self, compute: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, most: int) -> None:
        """``compute``: returns the values of up to ``most`` keys; it may omit keys."""
        self._compute = compute
        self._most = most
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def get(self, keys: Collection[K]) -> dict[K, V | None]:
        """Returns the values; None where ``compute`` has omitted the key. Raises what ``compute`` raises for one of the
        batches; the other callers of that batch get the same error."""
        loop = asyncio.get_running_loop()
        futures = {key: self._waiting.setdefault(key, loop.create_future()) for key in keys}
        if not futures:
            return {}
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="batches")
        await asyncio.wait(futures.values())  # a cancelled caller must not cancel the others' values
        return {key: future.result() for key, future in futures.items()}

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = {key: self._waiting.pop(key) for key in list(islice(self._waiting, self._most))}
                try:
                    values = await self._compute(list(batch))
                except Exception as error:
                    for future in batch.values():
                        future.set_exception(error)
                        future.exception()  # its callers may be cancelled
                    continue
                except asyncio.CancelledError:
                    for future in batch.values():
                        future.cancel()
                    raise
                for key, future in batch.items():
                    future.set_result(values.get(key))
        finally:
            self._worker = None
            for future in self._waiting.values():
                future.cancel()
            self._waiting.clear()
