"""The container service: the verbs of this package bound to one context. Routes and other services call this."""

import asyncio
from dataclasses import replace
from typing import Any

from api_models.filters import Filters
from engine.common.errors import WharfError
from server.config.model import Config
from server.containers import prune, rename
from server.containers.context import ContainerContext
from server.containers.create import create
from server.containers.create.validate import Rules
from server.containers.hooks import Hooks
from server.containers.inspect import inspect, listing
from server.containers.model import Container
from server.containers.registry import Registry
from server.containers.run import recover, remove, start, stop
from server.containers.run.checkpoint import to_restore
from server.containers.run.monitor import Monitor
from server.containers.waiters import Condition, Waiter


class Containers:
    """``load`` → ``open`` → use → ``close``. Methods that take ``key`` find by id, name or prefix.

    Every method raises WharfError NOT_FOUND ``No such container: x``, and what its module documents.
    """

    def __init__(self, context: ContainerContext, rules: Rules) -> None:
        self.context = context
        self._rules = rules
        self._monitor = Monitor(context)

    # ---- life of the service ---------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads the records; images and networks may ask for containers from then on."""
        await recover.load(self.context)

    async def open(self) -> None:
        """Follows the engine and brings records and reality together."""
        await self._monitor.start()
        await recover.recover(self.context)

    def reload(self, config: Config) -> None:
        """Applies what dockerd reloads: runtimes and their default, the size of ``/dev/shm``, the shutdown timeout."""
        self.context.runtimes.reload(config.runtimes, config.default_runtime)
        self.context.settings = replace(
            self.context.settings, default_shm_size=config.default_shm_size, shutdown_timeout=config.shutdown_timeout
        )

    async def close(self) -> None:
        """Stops following; containers go on running."""
        self.context.shutting_down = True
        self.context.recovered.set()  # a start that failed: nothing waits for its end
        await self._monitor.close()
        for restarts in self.context.restarts.values():
            restarts.cancelled.set()
        while self.context.tasks:
            await asyncio.gather(*self.context.tasks, return_exceptions=True)
        self.context.stdio.close()

    @property
    def registry(self) -> Registry:
        return self.context.registry

    @property
    def hooks(self) -> Hooks:
        return self.context.hooks

    def get(self, key: str) -> Container:
        return self.context.registry.get(key)

    # ---- verbs -----------------------------------------------------------------------------------------

    async def create(self, request: create.CreateRequest) -> tuple[Container, list[str]]:
        return await create.create(self.context, self._rules, request)

    async def start(self, key: str, *, checkpoint: str = "", directory: str = "") -> None:
        container = self.get(key)
        await start.start(self.context, container, image=to_restore(self.context, container, checkpoint, directory))

    async def stop(self, key: str, *, timeout: int | None = None, signal: str = "") -> None:
        await stop.stop(self.context, self.get(key), key, timeout=timeout, signal=signal)

    async def restart(self, key: str, *, timeout: int | None = None, signal: str = "") -> None:
        await start.restart(self.context, self.get(key), key, timeout=timeout, signal=signal)

    async def kill(self, key: str, signal: str = "") -> None:
        try:
            # The signal is looked at before the container, as in dockerd.
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
            await self.context.networks.remove_link(key)
        else:
            await remove.remove(self.context, self.get(key), force=force, volumes=volumes, key=key)

    def wait(self, key: str, condition: Condition) -> Waiter:
        """A future of the outcome, registered before this returns."""
        return self.context.waiters.register(self.get(key), condition)

    async def inspect(self, key: str, *, size: bool = False) -> dict[str, Any]:
        # ``client/alias`` is the container that a link leads to.
        container = self.context.networks.linked(key) if "/" in key.strip("/") else self.get(key)
        return await inspect.inspect(self.context, container, size=size)

    async def list(
        self, filters: Filters, *, everything: bool = False, limit: int = 0, size: bool = False
    ) -> list[dict[str, Any]]:
        return await listing.listing(self.context, filters, everything=everything, limit=limit, size=size)

    async def prune(self, filters: Filters) -> dict[str, Any]:
        return await prune.prune(self.context, filters)
