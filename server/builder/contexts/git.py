"""Git repositories as contexts and as sources of ``ADD``: ``url#ref:subdir``."""

import asyncio
import os
import re
import shutil
from dataclasses import dataclass

from engine.common.errors import Reason, WharfError, invalid
from engine.common.system.run import run
from engine.common.urls import parse_url
from server.builder.contexts.files import folder_below

_FETCH_SECONDS = 900.0  # allows for a large repository over a slow line
#: git's error for a web server that only serves files.
_NO_SHALLOW = b"does not support shallow"
_GIT = re.compile(r"^(git://|git@|github\.com/|ssh://git@)|^https?://.*\.git(#.*)?$")


def is_git(remote: str) -> bool:
    """Whether a remote context is a git repository, by dockerd's rule: the scheme, or a path that ends in .git."""
    return _GIT.search(remote) is not None


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
        done = await run(["git", *args], deadline=_FETCH_SECONDS, env=env)
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
