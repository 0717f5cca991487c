"""State shared by all builds of an owner: the engine, the cache, and the steps that run now."""

from engine.api.client import Engine
from server.access.caller import Caller
from server.builder.cache.mounts import CacheMounts
from server.builder.cache.records import Cache
from server.builder.plan.steps import Result
from server.builder.solver.shared_tasks import SharedTasks


class Builder:
    """State shared by all builds of an owner: the engine, the cache, and the steps that run now. ``caller``: the owner,
    and the role that restricts the steps; a new policy replaces it."""

    def __init__(self, engine: Engine, cache: Cache, *, scratch: str, cache_mounts: str, caller: Caller) -> None:
        self.engine, self.cache, self.caller = engine, cache, caller
        self.scratch = scratch
        """A directory for layers before they enter the content store."""
        self.cache_mounts = CacheMounts(cache, cache_mounts, scratch)
        """The directories of ``--mount=type=cache``, below the argument ``cache_mounts``."""
        self.steps: SharedTasks[Result] = SharedTasks()
        self.imports: SharedTasks[Result | None] = SharedTasks()
