"""Times of the classic builder's metadata-only instructions (server.builder.plan.instruction_times)."""

import time
from collections.abc import Mapping, Sequence

from server.builder.classic.history_cache import HistoryCache
from server.builder.classic.image import Documents, describe_in_thread, history_key
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.instruction_times import InstructionTimes
from server.builder.plan.steps import Result, Step


class MetadataTimes:
    """The times of one build. ``results``: of its steps so far, by ``id(step)``; ``epoch_ns`` replaces all times."""

    candidates: Sequence[HistoryCache] = ()
    """Images whose instructions count as those of an earlier build."""
    no_cache = False
    """Whether no instruction counts as that of an earlier build."""

    def __init__(
        self,
        instruction_times: InstructionTimes,
        results: Mapping[int, Result],
        *,
        epoch_ns: int | None,
    ) -> None:
        self._instruction_times, self._results = instruction_times, results
        self._epoch_ns = epoch_ns
        self._times: dict[str, int] = {}
        self._new: dict[str, int] = {}

    async def apply(self, config: ImageConfig, last: Step | None) -> bool:
        """Determine the time of the last line of a history; return whether an earlier build applied it."""
        if not config.history:
            return False
        key = await history_key(config, last, self._results)
        # Different epochs give different images.
        kept = key if self._epoch_ns is None else f"{key} {self._epoch_ns}"
        known = None if self.no_cache else await self._instruction_times.get(kept) or self._of_candidates(config, last)
        if known is None:
            self._new[kept] = time.time_ns() if self._epoch_ns is None else self._epoch_ns
        self._times[key] = self._new[kept] if known is None else known
        return known is not None

    def _of_candidates(self, config: ImageConfig, last: Step | None) -> int | None:
        diff_ids = () if last is None else self._results[id(last)].diff_ids
        texts = config.created_by.texts() if self.candidates else ()
        found = (image.applied_ns(texts, diff_ids) for image in self.candidates)
        return next((time_ns for time_ns in found if time_ns), None)

    async def describe(self, config: ImageConfig, last: Step | None) -> Documents:
        """Create the documents with the known times."""
        return await describe_in_thread(config, last, self._results, now_ns=0, times=self._times)

    async def save(self) -> None:
        """Store the new times for later builds."""
        if self._new:
            await self._instruction_times.put(self._new)
