"""Answers requests for metrics. Requests for the same view at the same time share one collection; one collection runs
at a time, in a thread. It ends early when the last client that waits for it disconnects."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from engine.common import timeline, timeouts
from engine.common.errors import WharfError
from server.access.caller import Caller
from server.containers.model import Container
from server.metrics import containers, engine, owners
from server.metrics.engine import Counters, Gauges
from server.metrics.sources import Answer, Sources
from server.metrics.targets import Abandoned, collect

if TYPE_CHECKING:
    from server.shares.store import Usage

log = logging.getLogger(__name__)

timeouts.define("metrics.collect", 5.0)  # reading of the containers' counters; the rest is omitted
timeouts.define("metrics.answer", 10.0)  # Prometheus' own default: a client that waits longer has left

#: Seconds between two measurements of the event loop's delay, and after the last request in which they are made.
_TICK, _WATCHED = 1.0, 300.0


@dataclass(frozen=True, slots=True)
class View:
    """What a client sees. ``caller`` None: only the metrics of the engine, as they are for everybody."""

    caller: Caller | None
    openmetrics: bool

    @property
    def key(self) -> object:
        if self.caller is None:
            return None, self.openmetrics
        return self.caller.owner, self.caller.administrator, self.caller.scope, self.openmetrics

    @property
    def whole(self) -> bool:
        """Whether it has the metrics of the engine: those of a user or of a scope would show what others do."""
        caller = self.caller
        return caller is None or (caller.administrator and (caller.scope is None or caller.scope.everything))


@dataclass(slots=True, eq=False)
class _Running:
    """A collection that runs. ``waiters``: the requests that wait for it."""

    task: "asyncio.Task[Answer]"
    waiters: int = 0
    abandoned: bool = False


@dataclass(slots=True)
class _Page(Collector):
    """The metrics of one answer, for the encoders of prometheus-client."""

    parts: list[Iterator[Metric]] = field(default_factory=list)

    def collect(self) -> Iterator[Metric]:
        for part in self.parts:
            yield from part


class Scrapes:
    """Counts the engine's operations from now on. Call ``close`` at the end."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.counters = Counters()
        timeline.observers.append(self.counters)
        self._running: dict[object, _Running] = {}
        self._lock = asyncio.Lock()
        self._ticker: asyncio.TimerHandle | None = None
        self._asked = 0.0

    def close(self) -> None:
        timeline.observers.remove(self.counters)
        if self._ticker is not None:
            self._ticker.cancel()
        for running in self._running.values():
            running.abandoned = True

    async def answer(self, view: View) -> Answer:
        """The metrics that are in a view.

        :raises WharfError: DEADLINE_EXCEEDED: ``metrics.answer``.
        """
        self._watch_loop()
        running = self._running.get(view.key)
        if running is None:
            running = self._begin(view)
        running.waiters += 1
        try:
            async with timeouts.limit("metrics.answer"):
                return await asyncio.shield(running.task)
        finally:
            running.waiters -= 1
            if not running.waiters and not running.task.done():
                running.abandoned = True
                self._forget(view, running)

    def _begin(self, view: View) -> _Running:
        # The task reads the attribute when it runs, not before the assignment.
        running = _Running(asyncio.create_task(self._make(view, lambda: running.abandoned), name="metrics"))
        self._running[view.key] = running
        running.task.add_done_callback(lambda task: self._ended(view, running))
        return running

    def _forget(self, view: View, running: _Running) -> None:
        if self._running.get(view.key) is running:
            del self._running[view.key]

    def _ended(self, view: View, running: _Running) -> None:
        self._forget(view, running)
        error = None if running.task.cancelled() else running.task.exception()
        if error is not None and not running.waiters and not isinstance(error, Abandoned):
            log.warning("metrics: %s", error)

    async def _make(self, view: View, abandoned: Callable[[], bool]) -> Answer:
        async with self._lock:
            if abandoned():
                raise Abandoned
            sources = self._sources
            visible = list(sources.containers.registry.seen_by(view.caller)) if view.caller is not None else []
            gauges = sources.gauges() if view.whole else None
            accounts = await self._accounts(view.caller) if view.caller is not None else []
            return await asyncio.to_thread(self._render, view, visible, gauges, accounts, abandoned)

    async def _accounts(self, caller: Caller) -> "list[Usage]":
        shares = self._sources.shares
        if shares is None:
            return []
        try:
            rows = await shares.accounting.today(None if caller.administrator else caller.owner)
        except WharfError as error:
            log.warning("metrics: the accounts can't be read: %s", error)
            return []
        return [row for row in rows if caller.scope is None or caller.scope.covers(row.owner, {})]

    def _render(
        self,
        view: View,
        visible: list[Container],
        gauges: Gauges | None,
        accounts: "list[Usage]",
        abandoned: Callable[[], bool],
    ) -> Answer:
        """Runs in a thread."""
        sources = self._sources
        context = sources.containers.context
        page = _Page()
        if gauges is not None:
            page.parts.append(iter(self.counters.registry.collect()))
            page.parts.append(
                engine.families(gauges, context.facts, identity=sources.identity, snapshotter=sources.snapshotter)
            )
        if view.caller is not None:
            collection = collect(
                context,
                visible,
                context.config.metrics_labels,
                sources.interfaces,
                seconds=timeouts.seconds("metrics.collect"),
                abandoned=abandoned,
            )
            page.parts.append(containers.families(collection))
            if sources.shares is not None:
                page.parts.append(owners.families(owners.count(visible), accounts))
        if view.openmetrics:
            # All names are valid without escaping, and the library's default escapes each of them letter by letter.
            body: bytes = openmetrics.generate_latest(page, openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
            return Answer(body, openmetrics.CONTENT_TYPE_LATEST)
        return Answer(exposition.generate_latest(page), exposition.CONTENT_TYPE_PLAIN_0_0_4)

    # the delay of the event loop

    def _watch_loop(self) -> None:
        self._asked = time.monotonic()
        if self._ticker is None:
            self._plan()

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _TICK
        self._ticker = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.counters.delay.observe(max(0.0, loop.time() - due))
        self._ticker = None
        if time.monotonic() - self._asked < _WATCHED:
            self._plan()
