"""Fetches the remote sources of ``ADD``, files and repositories, into a directory of the build."""

import asyncio
import hashlib
import os
import posixpath
import tempfile
from urllib.parse import unquote

import aiofiles

from engine.common.errors import internal, invalid
from engine.common.urls import parse_url
from server.builder.contexts.git import clone, is_git, repository
from server.builder.operations.interfaces import Fetched

UNNAMED = "__unnamed__"
"""BuildKit's file name for a URL without one."""


async def fetch(folder: str, url: str, *, checksum: str, keep_git_dir: bool) -> Fetched:
    """Download a file, or check out a repository, into a new directory below ``folder``.

    :raises WharfError: INVALID_ARGUMENT for a checksum mismatch; INTERNAL when the source cannot be fetched.
    """
    directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="fetched-", dir=folder)
    if is_git(url):
        return await _repository(directory, url, checksum=checksum, keep_git_dir=keep_git_dir)
    return await _file(directory, url, checksum=checksum)


async def _file(directory: str, url: str, *, checksum: str) -> Fetched:
    import httpx  # few builds need it

    name = unquote(posixpath.basename(parse_url(url).path)) or UNNAMED
    path = os.path.join(directory, "file")
    digest = hashlib.sha256()
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code >= 400:
                raise internal(f"failed to GET {url} with status {response.status_code} {response.reason_phrase}")
            modified = response.headers.get("last-modified", "")
            async with aiofiles.open(path, "wb") as file:
                async for piece in response.aiter_bytes():
                    digest.update(piece)
                    await file.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise internal(f"failed to GET {url}: {error or type(error).__name__}") from None
    found = f"sha256:{digest.hexdigest()}"
    if checksum and checksum != found:
        raise invalid(f"digest mismatch {found}: {checksum}")
    return Fetched(path, name, found, is_tree=False, mtime_ns=_last_modified(modified))


def _last_modified(text: str) -> int:
    """Parse ``Last-Modified`` to nanoseconds; 0 if it is missing."""
    import email.utils  # a large module, rarely needed

    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) * 10**9
    except (TypeError, ValueError):
        return 0


async def _repository(directory: str, url: str, *, checksum: str, keep_git_dir: bool) -> Fetched:
    root = os.path.join(directory, "tree")
    await asyncio.to_thread(os.mkdir, root)
    commit, path = await clone(url, root, keep_git=keep_git_dir)
    if checksum and not commit.startswith(checksum):
        raise invalid(f"expected checksum to match {checksum}, got {commit}")
    return Fetched(path, "", f"git:{commit}:{keep_git_dir}:{repository(url).folder}", is_tree=True)
