"""The container service: the operations of this package on one context. Routes and other services call it."""

import asyncio
import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from api_models.container import UpdateRequest
from api_models.filters import Filters
from engine.common.errors import WharfError
from server.access.caller import EVERYONE, Caller
from server.access.owners import OWNER_LABEL
from server.config.model import Config
from server.containers import prune, rename
from server.containers.context import ContainerContext
from server.containers.create import confine, create
from server.containers.create import update as updates
from server.containers.create.validate import Rules
from server.containers.hooks import Hooks
from server.containers.inspect import inspect, listing
from server.containers.model import Container
from server.containers.registry import Registry, View
from server.containers.run import checkpoint as checkpoints
from server.containers.run import recover, remove, start, stop
from server.containers.run.gpuwait import Cancellable
from server.containers.run.monitor import Monitor
from server.containers.waiters import Condition, Waiter


class Containers:
    """Call ``load``, then ``open``, then the operations, then ``close``. ``key``: an id, a name or a prefix of an id.

    Methods that take ``key`` raise NOT_FOUND ``No such container: x``; other errors are those of the called function.
    """

    def __init__(self, context: ContainerContext, rules: Rules) -> None:
        self.context = context
        self._rules = rules
        self._monitor = Monitor(context)
        self._caller = EVERYONE
        self._view = context.registry.seen_by(EVERYONE)

    def seen_by(self, caller: Caller) -> "Containers":
        """The same service for one caller: it finds only containers that exist for the caller, and what it creates
        belongs to the caller's owner."""
        bound = copy.copy(self)
        bound._caller, bound._view = caller, self.context.registry.seen_by(caller)
        return bound

    # start and end

    async def load(self) -> None:
        """Reads the records. From then on images and networks may look up containers."""
        await recover.load(self.context)

    async def open(self) -> None:
        """Subscribes to the engine's events and compares the records with the engine's tasks."""
        await self._monitor.start()
        await recover.recover(self.context)

    def reload(self, config: Config) -> None:
        """Applies the settings that dockerd reloads: the runtimes and their default, the default size of
        ``/dev/shm``, the timeouts of a shutdown and of a stop."""
        self.context.runtimes.reload(config.runtimes, config.default_runtime)
        self.context.config = config

    async def close(self) -> None:
        """Ends the background tasks. Containers keep running."""
        self.context.shutting_down = True
        self.context.recovered.set()  # if open() failed, tasks still wait for it
        await self._monitor.close()
        for restarts in self.context.restarts.values():
            restarts.cancelled.set()
        while self.context.tasks:
            await asyncio.gather(*self.context.tasks, return_exceptions=True)
        self.context.stdio.close()

    @property
    def registry(self) -> Registry:
        """The containers of all owners."""
        return self.context.registry

    @property
    def visible(self) -> View:
        """The containers that exist for the caller."""
        return self._view

    @property
    def hooks(self) -> Hooks:
        return self.context.hooks

    def get(self, key: str) -> Container:
        return self._view.get(key)

    # operations

    async def create(self, request: create.CreateRequest) -> tuple[Container, list[str]]:
        caller = self._caller
        request = replace(request, owner=caller.owner)
        if not caller.administrator and caller.uid >= 0:
            request = replace(request, credentials=(caller.uid, *caller.gids))
        if self._caller.role is not None:
            config, host = confine.check_create(self.context, self._caller, request.config, request.host_config)
            request = replace(request, config=config, host_config=host)
        shares = self.context.shares
        if shares is None:
            return await create.create(self.context, self._rules, request)
        async with shares.creating(request.owner, request.config, request.host_config):
            return await create.create(self.context, self._rules, request)

    async def update(self, key: str, request: UpdateRequest) -> Sequence[str]:
        container = self.get(key)
        if self._caller.role is not None:
            confine.check_update(self._caller.role, request)
        return await updates.update(self.context, container, request, request.restart_policy)

    async def start(
        self, key: str, *, checkpoint: str = "", directory: str = "", cancellable: Cancellable = nullcontext
    ) -> None:
        container = self.get(key)
        path = checkpoints.find_path(self.context, container, checkpoint, directory)
        await start.start(self.context, container, checkpoint_path=path, cancellable=cancellable)

    async def stop(self, key: str, *, timeout: int | None = None, signal: str = "") -> None:
        await stop.stop(self.context, self.get(key), key, timeout=timeout, signal=signal)

    async def restart(
        self, key: str, *, timeout: int | None = None, signal: str = "", cancellable: Cancellable = nullcontext
    ) -> None:
        container = self.get(key)
        await start.restart(self.context, container, key, timeout=timeout, signal=signal, cancellable=cancellable)

    async def kill(self, key: str, signal: str = "") -> None:
        try:
            # As in dockerd, a bad signal is reported before a missing container.
            stop.parse_kill_signal(signal)
            await stop.kill(self.context, self.get(key), signal)
        except WharfError as error:
            raise WharfError(error.kind, f"cannot kill container: {key}: {error.message}") from error

    async def pause(self, key: str) -> None:
        await stop.pause(self.context, self.get(key))

    async def pause_to_commit(self, key: str) -> bool:
        return await stop.pause_to_commit(self.context, self.get(key))

    async def unpause(self, key: str) -> None:
        await stop.unpause(self.context, self.get(key))

    async def rename(self, key: str, name: str) -> None:
        await rename.rename(self.context, self.get(key), name)

    async def remove(self, key: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        if link:
            await self.context.networks.remove_link(key, self._view)
        else:
            await remove.remove(self.context, self.get(key), force=force, volumes=volumes, key=key)

    def wait(self, key: str, condition: Condition) -> Waiter:
        """A future with the outcome; the caller misses no exit after this returns."""
        return self.context.waiters.register(self.get(key), condition)

    async def inspect(self, key: str, *, size: bool = False) -> dict[str, Any]:
        # ``client/alias`` names the target of a legacy link.
        container = self.context.networks.linked(key, self._view) if "/" in key.strip("/") else self.get(key)
        document = await inspect.inspect(self.context, container, size=size)
        if self._caller.administrator and container.owner:
            document["Config"]["Labels"] = {**(document["Config"]["Labels"] or {}), OWNER_LABEL: container.owner}
        if self._caller.scope is not None and self._caller.scope.mask_environment:
            document["Config"]["Env"] = [f"{text.partition('=')[0]}=***" for text in document["Config"]["Env"] or ()]
        return document

    async def list(
        self, filters: Filters, *, everything: bool = False, limit: int = 0, size: bool = False
    ) -> list[dict[str, Any]]:
        return await listing.listing(self.context, self._view, filters, everything=everything, limit=limit, size=size)

    async def prune(self, filters: Filters) -> dict[str, Any]:
        return await prune.prune(self.context, self._view, filters, owner=self._caller.owner)
