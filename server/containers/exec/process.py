"""The OCI process of an exec: the container's own process with what the request changes."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.common.errors import internal
from server.containers.context import ContainerContext
from server.containers.exec.model import ExecRequest
from server.containers.model import Container
from server.containers.run.process import ProcessFiles
from server.containers.run.stop import not_running
from server.containers.spec.process import exec_process, merge_env


class ExecProcesses:
    """Makes the processes of execs. Caches ``process`` of a container's spec, for one request to the engine per run."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        # Container id → (start of the run, process of the spec).
        self._cache: dict[str, tuple[int, Mapping[str, Any]]] = {}

    def discard(self, container: Container) -> None:
        """Discards the cached process of a container that has stopped or was removed."""
        self._cache.pop(container.id, None)

    async def make(
        self, container: Container, request: ExecRequest, console_size: tuple[int, int]
    ) -> dict[str, object]:
        """``process`` for the exec. ``console_size``: (height, width); (0, 0) selects the request's.

        :raises WharfError: CONFLICT: the container has exited; INTERNAL: the user isn't in the container; the engine's
            error, if it doesn't answer with the spec.
        """
        config = container.config
        own = await self._container_process(container)
        env = list(own["env"])
        if request.tty and not any(entry.startswith("TERM=") for entry in env):
            env.append("TERM=xterm")
        elif config.tty and not request.tty and "TERM" not in {e.partition("=")[0] for e in config.env or ()}:
            env = [entry for entry in env if not entry.startswith("TERM=")]
        user = request.user or config.user
        make = partial(
            exec_process,
            own,
            args=request.cmd,
            env=merge_env(env, request.env),
            files=ProcessFiles(container, self._context.reader(container)),
            host=self._context.facts,
            user=user,
            group_add=tuple(container.host_config.group_add or ()),
            cwd=request.working_dir or config.working_dir or "/",
            tty=request.tty,
            privileged=request.privileged,
            console_size=console_size if console_size != (0, 0) else request.console_size,
        )
        # With a user it reads files of the container, whose FUSE or network file systems may block: in a thread.
        try:
            return await asyncio.to_thread(make) if user else make()
        except ProcessLookupError:
            raise not_running(container) from None

    async def _container_process(self, container: Container) -> Mapping[str, Any]:
        started_ns, process = self._cache.get(container.id, (0, {}))
        if started_ns == container.state.started_ns and process:
            return process
        record = await self._context.engine.containers.get(container.id)
        if record.spec is None:
            raise internal(f"container {container.id} has no spec")
        found: Any = record.spec["process"]
        self._cache[container.id] = (container.state.started_ns, found)
        return found  # type: ignore[no-any-return]
