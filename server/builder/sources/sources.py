"""The contexts, secrets and SSH agents of a build, from its client's session
(server.builder.operations.interfaces.Contexts)."""

import asyncio
import hashlib
import json
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from engine.common.errors import Kind, WharfError, invalid
from engine.common.limits import DOCKERFILE_BYTES
from server.builder.contexts.contexts import Contexts
from server.builder.contexts.files import DEFAULT, folder_below
from server.builder.contexts.git import repository
from server.builder.dockerfile.ignore import read
from server.builder.dockerfile.instructions import Mount
from server.builder.fetch import fetch
from server.builder.jobs.job import Job
from server.builder.jobs.progress import Vertex
from server.builder.operations.interfaces import Context, Fetched
from server.builder.operations.lifetime import Lifetime
from server.builder.operations.selection import Checksums, read_file
from server.builder.operations.temporary import temporary_directory
from server.builder.session.filesync import Selection
from server.builder.session.session import Session
from server.builder.sources.mirrors import Mirrors

UPLOADED = "http://buildkit-session/"


def mirror_key(session: Session, name: str, client: str) -> str:
    """Return the key of a client directory's mirror: its shared key, the directory's name, and its path if known."""
    text = json.dumps([session.shared_key, session.name, name, client])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(slots=True)
class Sources:
    """The sources of one build. ``named``: named contexts and their values. Use as an async context manager."""

    session: Session
    mirrors: Mirrors
    uploads: Contexts
    options: Mapping[str, str]
    scratch: str
    job: Job
    named: Mapping[str, str] = field(default_factory=dict)
    follow: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The paths that the build needs of each context (``""`` is the main one); missing or empty for all."""
    ignore: Sequence[str] | None = None
    definition: Vertex | None = None
    """The vertex of the Dockerfile; build checks are shown under it."""
    lifetime: Lifetime = field(default_factory=Lifetime)
    """The lifetime of the files."""
    _open: dict[str, "asyncio.Task[Context]"] = field(default_factory=dict)
    _files: str = ""
    _agents: set[str] = field(default_factory=set)
    _remotes: dict[str, "asyncio.Task[str]"] = field(default_factory=dict)
    _listing: "asyncio.Task[Context] | None" = None

    async def __aenter__(self) -> "Sources":
        await self.lifetime.enter(self.job.lifetime.use())
        self._files = await self.lifetime.enter(temporary_directory(self.scratch, "build"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lifetime.at_end(self._close)
        await self.lifetime.release()

    async def _close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._open.values(), *self._remotes.values()]
        tasks += filter(None, (self._listing,))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _vertex(self, name: str) -> Vertex:
        return Vertex(self.job.send, name, f"{self.job.ref} {name}")

    async def _pull(
        self, selection: Selection, purpose: str, on_progress: Callable[[int], None] | None = None
    ) -> Context:
        key = mirror_key(self.session, selection.name, f"{purpose} {self.options.get('contextsubdir', '')}")
        description = f"local source for {selection.name if purpose == 'context' else purpose}"
        mirror = await self.lifetime.enter(self.mirrors.acquire(key, description))
        self.job.local.add(selection.name)
        mirror.changed = await self.session.pull_files(selection, mirror.path, on_progress)
        return Context(mirror.path, mirror.checksums)

    async def dockerfile(self, filename: str) -> tuple[bytes, str]:
        """Return the Dockerfile's text and name. Raises NOT_FOUND with BuildKit's sentence."""
        vertex = self.definition = self._vertex(f"[internal] load build definition from {filename}")
        remote = self.options.get("context", "")
        with vertex.running():
            if remote and "dockerfilekey" not in self.options:
                root = await self._remote(remote)
            else:
                names = [filename, f"{filename}.dockerignore", filename.lower()]
                key = self.options.get("dockerfilekey", "dockerfile")
                # Request .dockerignore concurrently: most Dockerfiles have no ignore file of their own.
                self._listing = asyncio.create_task(self._pull_ignore())
                with vertex.status("transferring dockerfile:") as on_progress:
                    root = (await self._pull(Selection(name=key, follow=names), "dockerfile", on_progress)).path
            found = await asyncio.to_thread(self._first, root, (filename, filename.lower()))
            if found is None:
                raise WharfError(
                    Kind.NOT_FOUND, f"failed to read dockerfile: open {filename}: no such file or directory"
                )
            text, name = found
            own = await asyncio.to_thread(read_file, root, f"{name}.dockerignore", limit=DOCKERFILE_BYTES)
        if own is not None:
            self.ignore = read(own.decode("utf-8", "replace"))
        return text, name

    @staticmethod
    def _first(root: str, names: Sequence[str]) -> tuple[bytes, str] | None:
        for name in names:
            data = read_file(root, name, limit=DOCKERFILE_BYTES)
            if data is not None:
                return data, name
        return None

    async def load_ignore(self) -> None:
        """Read ``.dockerignore``, unless the Dockerfile has an ignore file of its own."""
        if self.ignore is not None or self.options.get("context"):
            return
        vertex = self._vertex("[internal] load .dockerignore")
        with vertex.running(), vertex.status("transferring context:"):
            folder = await (self._listing or self._pull_ignore())
            data = await asyncio.to_thread(read_file, folder.path, ".dockerignore", limit=DOCKERFILE_BYTES)
        self.ignore = read(data.decode("utf-8", "replace")) if data is not None else ()

    async def _pull_ignore(self) -> Context:
        key = self.options.get("contextkey", "context")
        return await self._pull(Selection(name=key, follow=(".dockerignore",)), "ignore")

    # server.builder.operations.interfaces.Contexts

    async def open(self, name: str) -> Context:
        """Return a context; it is fetched once."""
        if name not in self._open:
            self._open[name] = asyncio.create_task(self._fetch(name))
        return await asyncio.shield(self._open[name])

    async def _fetch(self, name: str) -> Context:
        if not name:
            remote = self.options.get("context", "")
            if remote:
                root = await self._remote(remote)
                if below := self.options.get("contextsubdir", ""):
                    root = await asyncio.to_thread(folder_below, root, below)
                return Context(root, Checksums())
            vertex = self._vertex("[internal] load build context")
            key = self.options.get("contextkey", "context")
            with vertex.running(), vertex.status("transferring context:") as on_progress:
                selection = Selection(name=key, exclude=tuple(self.ignore or ()), follow=tuple(self.follow.get("", ())))
                return await self._pull(selection, "context", on_progress)
        given = self.named.get(name)
        if given is None:
            raise invalid(f"no build context named {name}")
        kind, _, rest = given.partition(":")
        if kind == "local":
            vertex = self._vertex(f"[context {name}] load .dockerignore")
            with vertex.running(), vertex.status(f"transferring {name}:") as on_progress:
                folder = await self._pull(Selection(name=rest, follow=(".dockerignore",)), "named ignore", on_progress)
                ignore = await asyncio.to_thread(read_file, folder.path, ".dockerignore", limit=DOCKERFILE_BYTES)
            exclude = tuple(read(ignore.decode("utf-8", "replace"))) if ignore is not None else ()
            vertex = self._vertex(f"[context {name}] load from client")
            with vertex.running(), vertex.status(f"transferring {name}:") as on_progress:
                selection = Selection(name=rest, exclude=exclude, follow=tuple(self.follow.get(name, ())))
                return await self._pull(selection, "named", on_progress)
        if given.startswith(("http://", "https://", "git@", "git://", "ssh://")):
            return Context(await self._remote(given), Checksums())
        raise invalid(f"unsupported context source {kind} for {name}")

    async def _remote(self, remote: str) -> str:
        """Fetch a context that is no directory of the client: an upload, an archive's URL, a repository."""
        if remote not in self._remotes:
            self._remotes[remote] = asyncio.create_task(self._load(remote))
        return await asyncio.shield(self._remotes[remote])

    async def _load(self, remote: str) -> str:
        shown = "" if remote.startswith(UPLOADED) else f" {remote}"
        vertex = self._vertex(f"[internal] load remote build context{shown}")
        name = self.options.get("filename") or DEFAULT
        pieces, url = (
            (self.session.upload(urlsplit(remote).path), "") if remote.startswith(UPLOADED) else (_nothing(), remote)
        )
        with vertex.running():
            folder = self.uploads.folder(pieces, url, name, on_digest=partial(self._record_source, remote))
            return await self.lifetime.enter(folder)

    def _record_source(self, url: str, digest: str) -> None:
        """Record a source for the provenance, of a repository without its subdirectory."""
        if digest.startswith("sha1:"):
            found = repository(url)
            url = f"{found.url}#{found.ref}" if found.ref else found.url
        self.job.fetched[url] = digest

    async def secret(self, id: str) -> bytes | None:
        try:
            return await self.session.secret(id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    async def ssh(self, id: str, options: Mount) -> str | None:
        try:
            await self.session.check_ssh(id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None
        text = f"{id} {options.uid}:{options.gid} {options.mode}"
        path = posixpath.join(self._files, f"agent-{hashlib.sha256(text.encode()).hexdigest()[:12]}")
        if path not in self._agents:
            self._agents.add(path)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self.session.forward_ssh(id, (reader, writer))

            server = await asyncio.start_unix_server(serve, path)
            await asyncio.to_thread(os.chown, path, int(options.uid or 0), int(options.gid or 0))
            await asyncio.to_thread(os.chmod, path, int(options.mode or "0600", 8))
            self.lifetime.at_end(server.close)
        return path

    async def fetch(self, url: str, *, checksum: str, keep_git_dir: bool) -> Fetched:
        fetched = await fetch(self._files, url, checksum=checksum, keep_git_dir=keep_git_dir)
        # A repository's key is git:<commit>:<whether .git is kept>:<subdirectory>.
        digest = fetched.digest
        self._record_source(url, f"sha1:{digest.split(':')[1]}" if fetched.is_tree else digest)
        return fetched


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
