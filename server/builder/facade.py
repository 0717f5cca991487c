"""Loads the builder on first use: wharfd needs 4 MiB less memory until a client builds.

Each owner has builds of its own: cache, history, sessions and running builds. A hit in a shared cache would reveal what
another owner has built, and return the result of a step that may contain that owner's secrets.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.errors import Kind, WharfError
from engine.common.system import installation
from server.access.caller import EVERYONE, Caller

if TYPE_CHECKING:
    from server.builder.service import Builds

#: Makes the builds of an owner, whose cache and history are below the directory.
Make = Callable[[Caller, Path], "Builds"]


class BuilderFacade:
    """Creates the builds of each owner. Call ``start`` before use, ``stop`` at the end."""

    def __init__(self, root: Path, exec_root: Path, make: Make) -> None:
        """``root``: the data root. ``make`` is called on the loop, after the modules are imported."""
        self._root, self._exec_root, self._make = root / "build", exec_root, make
        self._builds: dict[str, Builds] = {}
        self._lock = asyncio.Lock()
        self._origin = installation.identity()
        self._caller = EVERYONE

    def seen_by(self, caller: Caller) -> BuilderFacade:
        """The same builder for one caller, whose builds are those of its owner."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    async def start(self) -> None:
        """Load the administrators' builds if this data root has any: their start cleans up after a crash."""
        if self._root.exists():
            await self.builds()

    async def stop(self) -> None:
        for builds in list(self._builds.values()):
            await builds.stop()

    async def builds(self) -> Builds:
        """Return the builds of the caller's owner; the first call imports the builder.

        :raises WharfError: UNAVAILABLE: the installed modules differ from those that this daemon was started with.
        """
        # A scope restricts one socket, not the builds of the owner.
        caller = replace(self._caller, scope=None)
        async with self._lock:
            found = await self._load(caller)
        # A new policy may have changed the role, and ``visible`` loads the builds of users without their roles.
        found.builder.caller = caller
        return found

    async def visible(self) -> list[Builds]:
        """Return the builds whose cache exists for the caller: for an administrator those of all owners. Loads what is
        on disk."""
        if not self._caller.administrator:
            return [await self.builds()] if self._directory(self._caller.owner).exists() else []
        if not self._root.exists():
            return []
        async with self._lock:
            names = await asyncio.to_thread(_owners, self._root)
            return [await self._load(Caller(owner, administrator=not owner)) for owner in ("", *names)]

    async def remove_owned(self) -> None:
        """End the builds of the caller's owner, and remove their cache and history. For users only."""
        owner = self._caller.owner
        directory = self._directory(owner)
        if not owner or not directory.exists():
            return
        async with self._lock:
            builds = await self._load(self._caller)
            await builds.discard()
            del self._builds[owner]
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _load(self, caller: Caller) -> Builds:
        found = self._builds.get(caller.owner)
        if found is None:
            if installation.identity() != self._origin:
                raise WharfError(Kind.UNAVAILABLE, "wharfd was upgraded: restart it before building")
            if not self._builds:
                await asyncio.to_thread(import_module, "server.builder.service")
                from server.builder.runner import remove_leftovers

                await asyncio.to_thread(remove_leftovers, str(self._exec_root))
            found = self._make(caller, self._directory(caller.owner))
            await found.start()
            self._builds[caller.owner] = found
        return found

    def _directory(self, owner: str) -> Path:
        return self._root / f"@{owner}" if owner else self._root

    @property
    def loaded(self) -> Builds | None:
        """The caller's builds, or ``None`` if they are not loaded."""
        return self._builds.get(self._caller.owner)


def _owners(root: Path) -> list[str]:
    """The owners that have a directory."""
    return sorted(path.name[1:] for path in root.iterdir() if path.name.startswith("@"))
