"""Loads the metrics on first use: without a request for them, wharfd needs neither their modules nor their memory."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from engine.common.errors import Kind, WharfError
from engine.common.system import installation
from server.access.caller import EVERYONE, Caller
from server.containers.service import Containers
from server.events import EventBus
from server.networks.service import Networks

if TYPE_CHECKING:
    from server.metrics.engine import Gauges
    from server.metrics.scrape import Scrapes
    from server.metrics.sources import Answer
    from server.shares.service import Shares


@dataclass(slots=True)
class _Loaded:
    """What the views of all callers share. ``connections`` and ``requests`` return the numbers of open connections and
    requests of the API; the server that has them sets both."""

    scrapes: Scrapes | None = None
    connections: Callable[[], int] = lambda: 0
    requests: Callable[[], int] = lambda: 0


class MetricsFacade:
    """``identity``: the engine's ID. ``snapshotter``: what dockerd calls the graph driver. Call ``stop`` at the end."""

    def __init__(
        self,
        containers: Containers,
        networks: Networks,
        bus: EventBus,
        *,
        identity: str,
        snapshotter: str,
        shares: Shares | None,
    ) -> None:
        self._containers = containers
        self._networks = networks
        self._bus = bus
        self._identity = identity
        self._snapshotter = snapshotter
        self._shares = shares
        self._origin = installation.identity()
        self._lock = asyncio.Lock()
        self._shared = _Loaded()
        self._caller: Caller | None = EVERYONE

    def seen_by(self, caller: Caller) -> MetricsFacade:
        """The same metrics for one caller: those of containers that exist for the caller."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    def of_engine(self) -> MetricsFacade:
        """The same metrics for clients that can't be identified: without those of containers and owners."""
        bound = copy.copy(self)
        bound._caller = None
        return bound

    def count_with(self, connections: Callable[[], int], requests: Callable[[], int]) -> None:
        """Sets what returns the numbers of open connections and requests of the API."""
        self._shared.connections, self._shared.requests = connections, requests

    def observe(self, method: str, path: str, seconds: float, *, failed: bool) -> None:
        """The handler of a request has returned; ``path`` is the path of its route."""
        if self._shared.scrapes is not None:
            self._shared.scrapes.counters.request(method, path, seconds, failed=failed)

    async def start(self) -> None:
        """Counts the engine's operations from now on, not only from the first request.

        :raises WharfError: UNAVAILABLE: the installed modules differ from those that this daemon was started with.
        """
        async with self._lock:
            await self._load()

    async def answer(self, *, openmetrics: bool) -> Answer:
        """The metrics for the caller, in the text format of OpenMetrics or of Prometheus.

        :raises WharfError: DEADLINE_EXCEEDED: the collection takes too long; UNAVAILABLE: see ``start``.
        """
        async with self._lock:
            scrapes = await self._load()
        from server.metrics.scrape import View

        return await scrapes.answer(View(self._caller, openmetrics))

    def stop(self) -> None:
        if self._shared.scrapes is not None:
            self._shared.scrapes.close()
            self._shared.scrapes = None

    async def _load(self) -> Scrapes:
        shared = self._shared
        if shared.scrapes is None:
            if installation.identity() != self._origin:
                raise WharfError(Kind.UNAVAILABLE, "wharfd was upgraded: restart it before metrics are requested")
            # In a thread: the import of prometheus-client takes 50 ms.
            await asyncio.to_thread(import_module, "server.metrics.scrape")
            from server.metrics.scrape import Scrapes
            from server.metrics.sources import Sources

            shared.scrapes = Scrapes(
                Sources(
                    self._containers,
                    self._networks.interfaces,
                    self._identity,
                    self._snapshotter,
                    self._gauges,
                    self._shares,
                )
            )
        return shared.scrapes

    def _gauges(self) -> Gauges:
        from server.metrics.engine import Gauges, count_states

        return Gauges(
            states=count_states(self._containers.registry),
            events=self._bus.published,
            listeners=self._bus.listeners,
            connections=self._shared.connections(),
            requests=self._shared.requests(),
        )
