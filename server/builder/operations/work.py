"""What the steps of a build need from around them: contexts, a runner of processes, a view of the progress."""

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
from server.builder.operations.select import Checksums
from server.builder.plan.steps import Step


class Builder(Protocol):
    """What all builds share, as the operations use it (:class:`server.builder.solver.builder.Builder`)."""

    engine: Engine
    cache: Cache
    scratch: str
    """A directory for layers on their way into the content store."""
    cache_mounts: CacheMounts


@dataclass(frozen=True, slots=True)
class Context:
    """Files on disk that a build reads: its own context, or a named one. They don't change while it runs."""

    path: str
    checksums: Checksums


class Contexts(Protocol):
    """Where the files of a context are."""

    @property
    def lifetime(self) -> Lifetime:
        """The files stay as they are until it ends."""

    async def open(self, name: str) -> Context:
        """The context of a name (``""`` is the build's own), fetched when it is asked for the first time.

        Raises what fetching it raises; INVALID_ARGUMENT for a name that nobody gave.
        """

    async def secret(self, id: str) -> bytes | None:
        """A secret's content; ``None`` if the client has none of that id."""

    async def ssh(self, id: str, options: Mount) -> str | None:
        """The path of a socket that leads to the client's agent; ``None`` if it forwards none of that id.

        ``options``: who owns the socket, and its mode (``0600`` if it says nothing).
        """

    async def fetch(self, url: str, *, checksum: str, keep_git_dir: bool) -> "Fetched":
        """Downloads what ``ADD`` names. Raises with BuildKit's sentences."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded file, or a repository's tree. ``digest`` takes part in the step's key."""

    path: str
    name: str
    digest: str
    is_tree: bool
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """A part of a file system shown in the process's. Either ``path`` on the host or ``mounts`` of a snapshot.

    ``selector``: the file or directory of it that is shown, links followed within it.
    """

    target: str
    path: str = ""
    mounts: tuple[types.Mount, ...] = ()
    selector: str = ""
    readonly: bool = True
    kept: bool = False
    """A directory that is made where it is missing, in the source as in the root, whose layer keeps it."""


@dataclass(frozen=True, slots=True)
class FileMount:
    """A file that exists only for the process: a secret, or a here-document's script; kept in memory."""

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
class Ended:
    """How a process ended. Its root may be read at once; ``gone`` is to be awaited before it is used for more."""

    code: int
    gone: "asyncio.Task[None]"


class Runner(Protocol):
    """Runs a step's process as a task of the engine."""

    @property
    def plain(self) -> bool:
        """Whether no process gets anything but what its step says: no limits, no hosts."""

    async def run(self, job: Job, output: Callable[[int, bytes], None]) -> Ended:
        """Runs to the end; ``output`` gets stream (0 with the container's id, then 1 and 2) and bytes.

        Cancelled: the process is killed, and nothing of it is left. Raises the runtime's refusal.
        """


class Progress(Protocol):
    """What the front door shows of the work. Called on the loop; must not block."""

    @property
    def clips(self) -> bool:
        """Whether output is shown within BuildKit's limits (server.builder.solver.output)."""

    def started(self, step: Step, since_ns: int = 0) -> None:
        """The step begins: its inputs are there. ``since_ns``: another build runs it since then (Unix time)."""

    def cached(self, step: Step) -> None:
        """The step's result was there already; nothing else is told of it."""

    def done(self, step: Step, error: str = "") -> None:
        """The step ended."""

    def output(self, step: Step, stream: int, data: bytes, at_ns: int) -> None:
        """The step's process wrote to stream 1 or 2 at ``at_ns`` (Unix time); stream 0 is its container's id."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a front door asks for every process: ``HostConfig``'s names and units."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    cgroup_parent: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()
    extra_hosts: tuple[str, ...] = ()
    hostname: str = ""
