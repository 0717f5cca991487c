"""The build context: an archive that the client sends, the content of a URL, or a git repository.

The files are extracted, confined, to a directory of the engine, which is removed with the build.
"""

import asyncio
import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine.common.errors import Kind, Reason, WharfError, invalid
from engine.common.files.paths import open_inside
from engine.common.layers.compression import Compression, detect
from engine.common.layers.extract import apply
from engine.common.layers.target import Options, Target
from engine.common.system.run import run
from engine.common.threads import run_in_thread, run_to_completion
from engine.common.urls import parse_url
from server.builder.dockerfile.ignore import Ignore, read
from server.builder.operations.temporary import temporary_directory

DEFAULT = "Dockerfile"
AT_ONCE = 256 << 10
MAX_DOCKERFILE = 4 << 20
FETCH_SECONDS = 900.0  # allows for a large repository over a slow line
T = TypeVar("T")

#: git's error for a web server that only serves files.
_NO_SHALLOW = b"does not support shallow"
_GIT = re.compile(r"^(git://|git@|github\.com/|ssh://git@)|^https?://.*\.git(#.*)?$")


@dataclass(frozen=True, slots=True)
class Context:
    """A build's files below ``root``, and the text and name of its Dockerfile."""

    root: str
    dockerfile: str
    name: str


class Contexts:
    """Creates contexts below one directory; the start removes what a killed daemon left there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Remove the contexts of an earlier process. Blocks."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def open(self, body: AsyncIterator[bytes], remote: str, dockerfile: str) -> AsyncIterator[Context]:
        """Provide the context of ``body`` or of ``remote`` during the block.

        :raises WharfError: INVALID_ARGUMENT for a broken archive or a path outside the context; NOT_FOUND for a missing
            Dockerfile; INTERNAL when a URL or a repository cannot be fetched.
        """
        async with self._create_root() as root:
            text = ""
            if not remote:
                # Extract and read in one thread: two hops would dominate the time of a small context.
                yield await _extract(body, root, lambda: _read_dockerfile(root, dockerfile))
                return
            if is_git(remote):
                _, root_below = await clone(remote, root)
                if root_below != root:
                    yield await asyncio.to_thread(_read_dockerfile, root_below, dockerfile)
                    return
            elif remote.startswith(("http://", "https://")):
                text, _ = await _download(remote, root)
            else:
                raise invalid(f'remote URL could not be retrieved: "{remote}" is neither a URL nor a git repository')
            if text:
                yield Context(root, text, dockerfile or DEFAULT)
            else:
                yield await asyncio.to_thread(_read_dockerfile, root, dockerfile)

    @contextlib.asynccontextmanager
    async def folder(
        self, body: AsyncIterator[bytes], remote: str, name: str = DEFAULT, *, on_digest: Callable[[str], object]
    ) -> AsyncIterator[str]:
        """Like :meth:`open`, but provide only the directory of the files. Content that is no archive is the Dockerfile,
        whatever ``name`` is requested. ``on_digest``: called with the digest of the content; of a repository, ``sha1:``
        and the commit.

        :raises WharfError: as :meth:`open`.
        """
        async with self._create_root() as root:
            text: str | None = None
            below = root
            if not remote:
                digest = hashlib.sha256()
                hashed = _hash_pieces(body, digest)
                source = _Source(hashed)
                head = await source.read_head()
                if detect(head) is Compression.NONE and not await source.is_archive():
                    text = (await source.read_all(MAX_DOCKERFILE)).decode(errors="replace")
                else:
                    await _extract(source, root, lambda: None)
                    await _drain(hashed)
                on_digest(f"sha256:{digest.hexdigest()}")
            elif is_git(remote):
                commit, below = await clone(remote, root)
                on_digest(f"sha1:{commit}")
            else:
                downloaded, found = await _download(remote, root)
                text = downloaded or None
                on_digest(found)
            if text is not None:
                await asyncio.to_thread(_write, Path(root, posixpath.normpath(f"/{name}").lstrip("/")), text)
            yield below

    @contextlib.asynccontextmanager
    async def _create_root(self) -> AsyncIterator[str]:
        """Create an empty directory that only this engine can access."""
        async with temporary_directory(str(self._folder), "context", "context") as root:
            yield root


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def is_git(remote: str) -> bool:
    """Whether a remote context is a git repository, by dockerd's rule: the scheme, or a path that ends in .git."""
    return _GIT.search(remote) is not None


class _Source:
    """A blocking ``read`` for a thread, over an asynchronous stream."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self.whole = False
        """Whether the buffered head is the whole stream."""
        self._asked: Future[bytes] | None = None
        self._stopped = False

    async def read_head(self) -> bytes:
        """Read ahead; :meth:`read` returns the same bytes again. A small context is buffered completely, so that the
        thread needs no round trips to the loop."""
        pieces, size = [self._head], len(self._head)
        while size < AT_ONCE:
            piece = await self._more()
            if not piece:
                self.whole = True
                break
            pieces.append(piece)
            size += len(piece)
        self._head = b"".join(pieces)
        return self._head

    async def is_archive(self) -> bool:
        """Whether the stream starts with the header of an uncompressed tar."""
        while len(self._head) < 512 and (piece := await self._more()):
            self._head += piece
        return self._head[257:262] == b"ustar"

    async def read_all(self, limit: int) -> bytes:
        """Return the whole stream, for a small one. INVALID_ARGUMENT beyond ``limit`` bytes."""
        data = bytearray(self._head)
        while piece := await self._more():
            data += piece
            if len(data) > limit:
                raise invalid(f"the Dockerfile is larger than {limit} bytes")
        return bytes(data)

    async def _more(self) -> bytes:
        async for piece in self._body:
            if piece:
                return piece
        return b""

    def read(self, size: int) -> bytes:
        if self._head or self.whole:
            piece, self._head = self._head, b""
            return piece
        asked = self._asked = asyncio.run_coroutine_threadsafe(self._more(), self._loop)
        if self._stopped:
            asked.cancel()
        return asked.result()

    def stop(self) -> None:
        """End the stream for the reader; a thread may be blocked in :meth:`read` on a client that sends nothing."""
        self._stopped = True
        if self._asked is not None:
            self._asked.cancel()


async def _extract(body: "AsyncIterator[bytes] | _Source", root: str, then: Callable[[], T]) -> T:
    """Extract a tar of any compression with root as owner, as dockerd does; return the result of ``then``."""
    source = body if isinstance(body, _Source) else _Source(body)
    kind = detect(await source.read_head())

    def work() -> T:
        apply(source.read, Target(root), compression=kind, diff_id="-", options=Options(owner=(0, 0), clamp=True))
        return then()

    # A cancelled build must wait until the thread has stopped using the directory.
    return await run_to_completion(asyncio.to_thread(work) if source.whole else run_in_thread(work), source.stop)


async def _hash_pieces(body: AsyncIterator[bytes], digest: "hashlib._Hash") -> AsyncIterator[bytes]:
    async for piece in body:
        digest.update(piece)
        yield piece


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read what follows the end of an archive."""
    async for _ in body:
        pass


async def _download(url: str, root: str) -> tuple[str, str]:
    """Extract a URL's archive, or store its text as the Dockerfile; return the directory and the digest."""
    import httpx  # imported here: few builds need it

    try:
        parse_url(url)
    except WharfError as error:
        raise WharfError(Kind.INTERNAL, f"error downloading remote context {url}: {error.message}") from None
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code >= 400:
                words = (await response.aread())[:500].decode(errors="replace")
                status = f"{response.status_code} {response.reason_phrase}"
                raise invalid(
                    f"error downloading remote context {url}: failed to GET {url} with status {status}: {words}"
                )
            digest = hashlib.sha256()
            pieces = _hash_pieces(response.aiter_bytes(), digest)
            head = b""
            async for piece in pieces:
                head += piece
                if len(head) >= 512:
                    break

            async def all_of_it() -> AsyncIterator[bytes]:
                yield head
                async for piece in pieces:
                    yield piece

            if detect(head) is Compression.NONE and head[257:262] != b"ustar":
                text = bytearray()
                async for piece in all_of_it():
                    text += piece
                    if len(text) > MAX_DOCKERFILE:
                        raise invalid(f"the Dockerfile at {url} is larger than {MAX_DOCKERFILE} bytes")
                return text.decode(errors="replace"), f"sha256:{digest.hexdigest()}"
            await _extract(all_of_it(), root, lambda: None)
            await _drain(pieces)
            return "", f"sha256:{digest.hexdigest()}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WharfError(
            Kind.INTERNAL, f"error downloading remote context {url}: {error or type(error).__name__}"
        ) from None


@dataclass(frozen=True, slots=True)
class Repository:
    """A git remote: ``url#ref:subdir``."""

    url: str
    ref: str
    folder: str


def repository(remote: str) -> Repository:
    """Parse a git remote.

    :raises WharfError: INVALID_ARGUMENT for a part that git would parse as an option.
    """
    url, _, fragment = remote.partition("#")
    ref, _, folder = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if ref.startswith("-") or url.startswith("-"):
        raise invalid(f"invalid refspec: {ref}")
    if url.startswith(("git://", "http://", "https://", "ssh://")) and not parse_url(url).hostname:
        raise invalid(f"unable to parse git URL: {remote}")
    return Repository(url, ref, folder)


async def clone(remote: str, root: str, *, keep_git: bool = False) -> tuple[str, str]:
    """Check out a repository below ``root``; return the commit, and the requested subdirectory.

    :raises WharfError: INVALID_ARGUMENT with git's own words when it cannot be fetched.
    """
    found = repository(remote)
    safe = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "HOME": root + "/..", "GIT_PROTOCOL_FROM_USER": "0"}
    env = {**os.environ, **safe}

    async def git(*args: str) -> bytes:
        done = await run(["git", *args], deadline=FETCH_SECONDS, env=env)
        if done.status:
            words = done.stderr.decode(errors="replace").strip()
            shallow = Reason.SHALLOW_UNSUPPORTED if _NO_SHALLOW in done.stderr else None
            raise invalid(f"error fetching: {words}: exit status {done.status}", reason=shallow)
        return done.stdout

    await git("init", "-q", root)
    await git("-C", root, "remote", "add", "origin", found.url)
    fetch = ("-C", root, "fetch", "-q", "origin", found.ref or "HEAD")
    try:
        await git(*fetch, "--depth", "1")
    except WharfError as error:
        if error.reason is not Reason.SHALLOW_UNSUPPORTED:
            raise
        # A server that serves plain files can't fetch a single commit: fetch the whole repository.
        await git(*fetch)
    await git("-C", root, "-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD")
    await git("-C", root, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    commit = (await git("-C", root, "rev-parse", "HEAD")).decode().strip()
    if not keep_git:
        await asyncio.to_thread(shutil.rmtree, os.path.join(root, ".git"), ignore_errors=True)
    if not found.folder:
        return commit, root
    return commit, await asyncio.to_thread(folder_below, root, found.folder)


def folder_below(root: str, folder: str) -> str:
    """Return a directory in the context; links are resolved within the root."""
    try:
        fd = open_inside(root, folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise invalid(f"error setting git subdir: {folder}: {(error.strerror or '').lower()}") from None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _read_dockerfile(root: str, dockerfile: str) -> Context:
    """Read the Dockerfile of a context. The Dockerfile and ``.dockerignore`` are deleted after reading if ignored."""
    name = dockerfile or DEFAULT
    text = _read_inside(root, name)
    if text is None and not dockerfile:
        name = "dockerfile"
        text = _read_inside(root, name)
    if text is None:
        raise WharfError(Kind.INTERNAL, f"Cannot locate specified Dockerfile: {dockerfile or DEFAULT}")
    if not text:
        raise invalid(f"the Dockerfile ({name}) cannot be empty")
    own = f"{name}.dockerignore"
    listed = _read_inside(root, own)
    listing = own if listed is not None else ".dockerignore"
    patterns = listed if listed is not None else _read_inside(root, ".dockerignore")
    if patterns:
        ignore = Ignore(read(patterns))
        for file in (listing, posixpath.normpath(name)):
            if ignore.ignores(file):
                with contextlib.suppress(OSError):
                    _unlink_inside(root, file)
    return Context(root, text, name)


def _unlink_inside(root: str, name: str) -> None:
    """Delete a file of the context. Links in its path are resolved within the root, as when the file was read."""
    above, _, last = name.rpartition("/")
    parent = open_inside(root, above, os.O_PATH | os.O_DIRECTORY)
    try:
        os.unlink(last, dir_fd=parent)
    finally:
        os.close(parent)


def _read_inside(root: str, name: str) -> str | None:
    """Read a text file of the context; ``None`` if it is missing.

    :raises WharfError: INTERNAL in dockerd's words for a path outside the context.
    """
    clean = posixpath.normpath(name.lstrip("/"))
    if clean.startswith("../") or clean == "..":
        raise WharfError(Kind.INTERNAL, f"forbidden path outside the build context: {name} ()")
    try:
        fd = open_inside(root, clean, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > MAX_DOCKERFILE:
            raise invalid(f"{name} is larger than {MAX_DOCKERFILE} bytes")
        return file.read().decode(errors="replace")
