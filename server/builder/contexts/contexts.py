"""Creates the directories of contexts and fills them."""

import asyncio
import contextlib
import posixpath
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from engine.common.errors import invalid
from server.builder.contexts.download import download
from server.builder.contexts.files import DEFAULT, Context, read_dockerfile
from server.builder.contexts.git import clone, is_git
from server.builder.contexts.stream import Stream, extract, extract_or_read
from server.builder.operations.temporary import temporary_directory


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

        :raises WharfError: INVALID_ARGUMENT for a broken archive, an empty Dockerfile, or a repository that can't be
            fetched; INTERNAL for a missing Dockerfile, a path outside the context, or a URL that can't be fetched.
        """
        async with self._create_root() as root:
            text: str | None = None
            if not remote:
                # Extract and read in one thread: two hops would dominate the time of a small context.
                yield await extract(Stream(body), root, lambda: read_dockerfile(root, dockerfile))
                return
            if is_git(remote):
                _, root_below = await clone(remote, root)
                if root_below != root:
                    yield await asyncio.to_thread(read_dockerfile, root_below, dockerfile)
                    return
            elif remote.startswith(("http://", "https://")):
                text, _ = await download(remote, root)
            else:
                raise invalid(f'remote URL could not be retrieved: "{remote}" is neither a URL nor a git repository')
            if text:
                yield Context(root, text, dockerfile or DEFAULT)
            else:
                yield await asyncio.to_thread(read_dockerfile, root, dockerfile)

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
                text, digest = await extract_or_read(body, root)
                on_digest(digest)
            elif is_git(remote):
                commit, below = await clone(remote, root)
                on_digest(f"sha1:{commit}")
            else:
                text, digest = await download(remote, root)
                on_digest(digest)
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
