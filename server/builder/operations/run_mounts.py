"""The mounts of a ``RUN`` step: what ``--mount`` and here-documents add to the process's file system."""

import asyncio
import hashlib
import os
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from engine.api.types import Mount
from engine.common.errors import invalid, not_found
from engine.common.files.copyup import copy_up
from engine.common.files.mount_thread import MountThread
from server.builder.cache.mounts import record_id
from server.builder.cache.records import MOUNT, Record
from server.builder.operations.interfaces import Bind, Builder, Contexts, FileMount, Tmpfs
from server.builder.operations.temporary import temporary_directory
from server.builder.plan.steps import ResolvedMount, Result, Run

SECRETS = "/run/secrets"
SSH_SOCKET = "/run/buildkit/ssh_agent.{number}"
PIPES = "/dev/pipes"


@dataclass(slots=True)
class Mounts:
    """An async context manager; inside its block, the lists hold what the process's job needs."""

    builder: Builder
    contexts: Contexts
    operation: Run
    parent: Result
    found: dict[int, Result]
    id: str
    binds: list[Bind] = field(default_factory=list)
    files: list[FileMount] = field(default_factory=list)
    tmpfs: list[Tmpfs] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _volumes: tuple[Mount, ...] | None = None
    _caches: dict[str, str] = field(default_factory=dict)
    """The directories of cache mounts by :meth:`_identity`."""

    async def __aenter__(self) -> "Mounts":
        try:
            for name, content in self.operation.files:
                self.files.append(FileMount(f"{PIPES}/{name}", content.encode(), 0o755))
            handlers = {
                "bind": self._bind,
                "cache": self._cache,
                "tmpfs": self._tmpfs,
                "secret": self._secret,
                "ssh": self._ssh,
            }
            await self._acquire_caches()
            for mount in self.operation.mounts:
                await handlers[mount.options.type](mount)
            for path in self.operation.volumes:
                self.binds.append(Bind(path, "", await self._parent_copy(), path, readonly=False, kept=True))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._stack.aclose())

    async def _source(self, mount: ResolvedMount) -> tuple[str, tuple[Mount, ...]]:
        """A directory on the host, or the mounts of a temporary writable snapshot."""
        origin = mount.origin
        if origin is None:
            return "", ()
        if origin.step is not None:
            chain = self.found[id(origin.step)].chain_id
            return "", await self._temporary(chain)
        return (await self.contexts.open(origin.context)).path, ()

    async def _temporary(self, chain: str) -> tuple[Mount, ...]:
        key = f"{self.id}-mount-{secrets.token_hex(4)}"
        mounts = await self.builder.engine.snapshots.prepare(key, chain)
        self._stack.push_async_callback(self.builder.engine.snapshots.remove, key)
        return mounts

    async def _parent_copy(self) -> tuple[Mount, ...]:
        """A temporary writable snapshot of the parent."""
        if self._volumes is None:
            self._volumes = await self._temporary(self.parent.chain_id)
        return self._volumes

    async def _overlay(self, path: str) -> tuple[Mount, ...]:
        """An overlay with a temporary upper layer over a directory of the host."""
        directory = await self._stack.enter_async_context(temporary_directory(self.builder.scratch, "over"))
        upper, work = os.path.join(directory, "upper"), os.path.join(directory, "work")
        for made in (upper, work):
            await asyncio.to_thread(os.mkdir, made, 0o755)
        options = (f"lowerdir={path}", f"upperdir={upper}", f"workdir={work}", "index=off")
        return (Mount(type="overlay", source="overlay", options=options),)

    async def _bind(self, mount: ResolvedMount) -> None:
        options = mount.options
        path, mounts = await self._source(mount)
        if not path and not mounts:
            mounts = await self._temporary("")
        readonly = options.readonly is not False
        if path and not readonly:
            # The process's writes must not change the context for later steps: redirect them to a temporary upper
            # layer.
            path, mounts = "", await self._overlay(path)
        self.binds.append(Bind(options.target, path, mounts, options.source, readonly=readonly))

    def _identity(self, mount: ResolvedMount) -> str:
        """The name of a cache's directories."""
        options, source = mount.options, ""
        if mount.origin is not None:
            step = mount.origin.step
            source = self.found[id(step)].key if step is not None else mount.origin.context
        # Caches that start with different owners or modes are different caches.
        begins = f"\0{options.mode}:{options.uid}:{options.gid}" if options.mode or options.uid or options.gid else ""
        text = f"{options.id or options.target}\0{source}\0{options.source}{begins}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    async def _cache(self, mount: ResolvedMount) -> None:
        path = self._caches[self._identity(mount)]
        self.binds.append(Bind(mount.options.target, path, readonly=mount.options.readonly is True))

    async def _acquire_caches(self) -> None:
        """Acquire one directory per cache, however often it is mounted; all steps lock caches in the same order."""
        caches: dict[str, ResolvedMount] = {}
        for mount in self.operation.mounts:
            if mount.options.type == "cache":
                caches.setdefault(self._identity(mount), mount)
        for identity, mount in sorted(caches.items()):
            use = self.builder.cache_mounts.use(
                identity, mount.options.sharing, partial(self._fill, mount=mount), partial(self._describe, mount=mount)
            )
            path = self._caches[identity] = await self._stack.enter_async_context(use)
            self._stack.push_async_callback(self._measure, record_id(os.path.basename(path)), path)

    async def _fill(self, path: str, mount: ResolvedMount) -> None:
        """Create the directory of a cache; with ``from=`` copy its initial content."""
        options = mount.options
        mode = int(options.mode or "0755", 8)
        uid, gid = int(options.uid or 0), int(options.gid or 0)

        def make() -> None:
            os.makedirs(path, 0o755)
            os.chown(path, uid, gid)
            os.chmod(path, mode)

        await asyncio.to_thread(make)
        if mount.origin is None:
            return
        root, mounts = await self._source(mount)
        async with MountThread("build") as thread:
            if mounts:
                root = await thread.mount(mounts)
            if root and not await thread.run(copy_up, root, options.source or "/", path):
                raise not_found(f'failed to compute cache key: "/{options.source.strip("/")}": not found')
            if mounts:
                await thread.unmount(root)

    def _describe(self, record: str, path: str, mount: ResolvedMount) -> Record:
        now, options = time.time_ns(), mount.options
        name = options.id or options.target
        description = f'cached mount {options.target} from exec {" ".join(self.operation.args)} with id "/{name}"'
        return Record(record, "", "", None, path, MOUNT, now, now, 1, 0, description)

    async def _measure(self, record: str, path: str) -> None:
        size = await asyncio.to_thread(disk_usage, path)
        await self.builder.cache.resize({record: size})

    async def _tmpfs(self, mount: ResolvedMount) -> None:
        size = int(mount.options.size) if mount.options.size.isdigit() else _bytes(mount.options.size)
        self.tmpfs.append(Tmpfs(mount.options.target, size))

    async def _secret(self, mount: ResolvedMount) -> None:
        options = mount.options
        name = options.id or options.source or os.path.basename(options.target)
        content = await self.contexts.secret(name)
        if content is None:
            if options.required:
                raise invalid(f"secret {name}: not found")
            return
        if options.env is not None:
            self.env.append(f"{options.env or name}={content.decode('utf-8', 'surrogateescape')}")
        if options.env is None or options.target:
            target = options.target or f"{SECRETS}/{name}"
            mode = int(options.mode or "0400", 8)
            self.files.append(FileMount(target, content, mode, int(options.uid or 0), int(options.gid or 0)))

    async def _ssh(self, mount: ResolvedMount) -> None:
        options = mount.options
        name = options.id or "default"
        path = await self.contexts.ssh(name, options)
        if path is None:
            if options.required:
                raise invalid(f"unset ssh forward key {name}")
            return
        number = sum(item.startswith("SSH_AUTH_SOCK=") for item in self.env)
        target = options.target or SSH_SOCKET.format(number=number)
        self.binds.append(Bind(target, path, readonly=False))
        if not number:
            self.env.append(f"SSH_AUTH_SOCK={target}")


def disk_usage(path: str) -> int:
    """Return the bytes that a tree uses on disk, counting each inode once. Blocks."""
    total = 0
    stack, seen = [path], set[int]()
    while stack:
        try:
            with os.scandir(stack.pop()) as found:
                for item in found:
                    status = item.stat(follow_symlinks=False)
                    if item.is_dir(follow_symlinks=False):
                        stack.append(item.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                    total += status.st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def _bytes(text: str) -> int:
    """Parse a size such as ``64m``; 0 for an empty text."""
    if not text:
        return 0
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    unit = units.get(text[-1:].lower())
    number = text[:-1] if unit is not None else text
    if not number.isdigit():
        raise invalid(f"invalid size: '{text}'")
    return int(number) * (unit or 1)
