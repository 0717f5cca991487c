"""Loads the builder on first use: wharfd needs 4 MiB less memory until a client builds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.errors import Kind, WharfError
from engine.common.system import installation
from server.access.caller import Caller

if TYPE_CHECKING:
    from server.builder.service import Builds


class BuilderFacade:
    """Creates the builder. Call ``start`` before use, ``stop`` at the end."""

    def __init__(self, root: Path, make: Callable[[], Builds]) -> None:
        """``root``: the data root. ``make`` is called once, on the loop, after the modules are imported."""
        self._root, self._make = root / "build", make
        self._builds: Builds | None = None
        self._lock = asyncio.Lock()
        self._origin = installation.identity()

    def seen_by(self, caller: Caller) -> BuilderFacade:
        """The same builder for one caller."""
        return self

    async def start(self) -> None:
        """Load the builder if this data root has builds: its start cleans up after a crash."""
        if self._root.exists():
            await self.builds()

    async def stop(self) -> None:
        if self._builds is not None:
            await self._builds.stop()

    async def builds(self) -> Builds:
        """Return the builder; the first call imports it.

        :raises WharfError: UNAVAILABLE: the installed modules differ from those that this daemon was started with.
        """
        async with self._lock:
            if self._builds is None:
                if installation.identity() != self._origin:
                    raise WharfError(Kind.UNAVAILABLE, "wharfd was upgraded: restart it before building")
                await asyncio.to_thread(import_module, "server.builder.service")
                builds = self._make()
                await builds.start()
                self._builds = builds
            return self._builds

    @property
    def loaded(self) -> Builds | None:
        """The builder, or ``None`` if it is not loaded."""
        return self._builds
