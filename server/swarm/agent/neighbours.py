"""The services of this engine as the agent calls them: one Protocol for each, with only the methods that are called.

They are the ordinary services for an administrator (``server.wiring``); the networks of the swarm are those of
``server.networks.overlay``. Errors are ``WharfError``; their messages are dockerd's sentences.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from api_models.container import NetworkSettings
from server.containers.create.create import CreateRequest
from server.containers.hooks import Hooks
from server.containers.host.remap import Remap
from server.containers.logs.format import Query
from server.containers.model import Container
from server.containers.registry import Registry
from server.containers.waiters import Condition, Waiter
from server.networks.overlay.model import OverlayNetworks
from server.registry.auth import ANONYMOUS, Credentials
from server.registry.progress import Message
from server.registry.reference import Reference
from server.registry.source import Source


class Containers(Protocol):
    """``key``: an id. All containers of this node, also those of an earlier daemon, are known when the agent starts."""

    @property
    def registry(self) -> Registry:
        """All containers; those of tasks are ``Container.managed``."""

    @property
    def hooks(self) -> Hooks:
        """Called at each start, exit and removal, and when the health status changes."""

    async def create(self, request: CreateRequest) -> tuple[Container, list[str]]:
        """Makes a container; a cancelled call leaves nothing.

        :raises WharfError: NOT_FOUND ``No such image: …``; CONFLICT: the name is in use; INVALID_ARGUMENT.
        """

    async def start(self, key: str) -> None:
        """:raises WharfError: NOT_MODIFIED: it runs; else why the start failed, and the container has its exit code."""

    async def stop(self, key: str, *, timeout: int | None = None) -> None:
        """Sends the stop signal, after ``timeout`` seconds SIGKILL (None: the container's or the daemon's timeout), and
        returns after the exit.

        :raises WharfError: NOT_MODIFIED: it doesn't run; NOT_FOUND.
        """

    async def remove(self, key: str, *, force: bool = False, volumes: bool = False) -> None:
        """Removes a container. ``force``: kills a running one. ``volumes``: also its anonymous volumes.

        :raises WharfError: NOT_FOUND; CONFLICT: it is being removed already.
        """

    def wait(self, key: str, condition: Condition) -> Waiter:
        """A future with the outcome of the container's next exit, or of its last one if it doesn't run.

        :raises WharfError: NOT_FOUND.
        """


class Images(Protocol):
    """The images of administrators."""

    async def pull_from(self, source: Source, reference: Reference) -> None:
        """As ``pull``, from elsewhere than the image's registry."""

    async def find_id(self, ref: str) -> str | None:
        """The id of the image with this name or id; None if there is none."""

    def references(self) -> AsyncIterator[set[str]]:
        """The names and digests of all images, now and after each change."""

    def pull(self, reference: Reference, *, credentials: Credentials = ANONYMOUS) -> AsyncIterator[Message]:
        """Pulls one tag or digest. The iterator ends when the image is stored, and raises WharfError if that fails."""


class Networks(Protocol):
    def settings(self, container: Container) -> NetworkSettings:
        """``NetworkSettings`` of inspect: published ports and addresses."""

    def is_attached(self, container_id: str, network_id: str) -> bool:
        """Whether a container is on a network, or joins it now."""


class Logs(Protocol):
    def open(self, container: Container, query: Query) -> AsyncIterator[bytes]:
        """The log in chunks of whole records; with ``follow`` until the container stops.

        :raises WharfError: NOT_IMPLEMENTED: the log driver keeps no file; CONFLICT: the container is being removed.
        """


class System(Protocol):
    async def info(self) -> dict[str, Any]:
        """The answer of ``GET /info`` at the newest API version."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """``exec_root``: the daemon's; secrets are below it. ``overlay`` None: this engine makes no networks of the swarm;
    tasks on one are rejected. ``remap``: the mapping of the containers' user ids (``userns-remap``)."""

    containers: Containers
    images: Images
    networks: Networks
    logs: Logs
    system: System
    exec_root: Path
    overlay: OverlayNetworks | None = None
    remap: Remap | None = None
    cdi_spec_dirs: tuple[str, ...] = ()
