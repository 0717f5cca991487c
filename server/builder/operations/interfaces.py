"""The interfaces that a solver depends on: build contexts, a process runner and a progress display."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.api import types
from engine.api.client import Engine
from server.builder.cache.mounts import CacheMounts
from server.builder.cache.records import Cache
from server.builder.dockerfile.instructions import Mount
from server.builder.operations.lifetime import Lifetime
from server.builder.operations.selection import Checksums
from server.builder.plan.steps import Step


class Builder(Protocol):
    """The state shared by all builds, as operations use it (:class:`server.builder.solver.builder.Builder`)."""

    engine: Engine
    cache: Cache
    scratch: str
    """A directory for layers before they enter the content store."""
    cache_mounts: CacheMounts


@dataclass(frozen=True, slots=True)
class Context:
    """A directory that a build reads: its own context or a named one. Its files do not change while the build runs."""

    path: str
    checksums: Checksums


class Contexts(Protocol):
    """Resolves build contexts, secrets, SSH agents and remote sources."""

    @property
    def lifetime(self) -> Lifetime:
        """The files stay unchanged until this lifetime ends."""

    async def open(self, name: str) -> Context:
        """Return the context of that name (``""`` is the build's own); the first call fetches it.

        Raises what fetching raises; INVALID_ARGUMENT for an unknown name.
        """

    async def secret(self, id: str) -> bytes | None:
        """Return a secret's content; ``None`` if the client has no secret of that id."""

    async def ssh(self, id: str, options: Mount) -> str | None:
        """Return the path of a socket that is forwarded to the client's agent; ``None`` if it forwards none of that id.

        ``options``: the owner of the socket and its mode (default ``0600``).
        """

    async def fetch(self, url: str, *, checksum: str, keep_git_dir: bool) -> "Fetched":
        """Download a source of ``ADD``. Raises with BuildKit's sentences."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded file, or a repository's tree. ``digest`` is part of the step's cache key."""

    path: str
    name: str
    digest: str
    is_tree: bool
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """A bind mount of a step's process. The source is ``path`` on the host, or ``mounts`` of a snapshot.

    ``selector``: the file or directory of the source to mount; symbolic links are resolved within the source.
    """

    target: str
    path: str = ""
    mounts: tuple[types.Mount, ...] = ()
    selector: str = ""
    readonly: bool = True
    kept: bool = False
    """A directory that is created where it is missing, in the source and in the root; the step's layer keeps it."""


@dataclass(frozen=True, slots=True)
class FileMount:
    """A file that exists only for the process, in memory: a secret, or the script of a here-document."""

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Tmpfs:
    target: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One process to run on a writable snapshot."""

    id: str
    rootfs: tuple[types.Mount, ...]
    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: str
    network: str
    privileged: bool = False
    binds: tuple[Bind, ...] = ()
    files: tuple[FileMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended. The root may be read at once; await ``removal`` before using the root for anything else."""

    code: int
    removal: "asyncio.Task[None]"


class Runner(Protocol):
    """Runs the process of a step as a task of the engine."""

    @property
    def plain(self) -> bool:
        """Whether processes get only what their step defines: no resource limits, no extra hosts."""

    async def run(self, job: Job, output: Callable[[int, bytes], None]) -> ProcessExit:
        """Run the process until it exits; ``output`` gets the stream (0: the container's id, 1, 2) and the bytes.

        On cancellation the process is killed and removed. Raises the runtime's error.
        """


class Progress(Protocol):
    """The progress display of a front end. Called on the loop; must not block."""

    @property
    def clips(self) -> bool:
        """Whether the display limits output as BuildKit does (server.builder.solver.output)."""

    def started(self, step: Step, since_ns: int = 0) -> None:
        """The step starts; its inputs are solved. ``since_ns``: the start in another build that runs it (Unix time)."""

    def cached(self, step: Step) -> None:
        """The step's result was cached; only ``done`` follows."""

    def done(self, step: Step, error: str = "") -> None:
        """The step ended, with ``error`` if it failed."""

    def output(self, step: Step, stream: int, data: bytes, at_ns: int) -> None:
        """The process wrote to stream 1 or 2 at ``at_ns`` (Unix time); on stream 0 comes the container's id."""
