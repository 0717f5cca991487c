"""Opens paths of a tree that its owner (a container, a build context) may change concurrently. No other module does.

The kernel resolves each path in one call, ``openat2(RESOLVE_IN_ROOT)``: it follows links as for a process whose root is
the tree, never out of it. Resolving a path in several steps is unsafe: between two of them, a program in a container
can exchange a directory for a link (``renameat2(RENAME_EXCHANGE)``, CVE-2018-15664). So callers use the descriptor that
these functions return, and names in it with ``dir_fd`` and ``O_NOFOLLOW``. A path that
:func:`resolve` returns may be displayed, or opened with :func:`open_inside`, but not with ``os.open``.

All functions block. Roots are descriptors, or paths of directories that the tree's owner can't exchange.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from engine.common.errors import invalid
from engine.common.system import linux

_MOST_LINKS = 40
# A magic link of procfs (/proc/self/root, /proc/1/fd/3) leads out of every root, so don't follow any.
_INSIDE = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
#: Opens the last component itself, also when it is a link.
_LAST = os.O_PATH | os.O_NOFOLLOW


def open_inside(root: int | str, path: str, flags: int, mode: int = 0) -> int:
    """Opens ``path`` as a process whose root is ``root`` would; returns a close-on-exec descriptor.

    :raises OSError: of openat2(2), with the path; ELOOP also for a magic link.
    """
    if isinstance(root, str):
        with _opened(root) as fd:
            return open_inside(fd, path, flags, mode)
    return linux.openat2(root, path.lstrip("/") or ".", flags, mode, _INSIDE)


def open_file(root: int | str, path: str) -> int:
    """Opens a regular file for reading. Opening a FIFO may block and opening a device may have effects, so both are
    refused.

    :raises OSError: as :func:`open_inside`; EISDIR: a directory; EINVAL: not a regular file.
    """
    fd = open_inside(root, path, os.O_PATH)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


@contextmanager
def _opened(root: str) -> Iterator[int]:
    fd = os.open(root, _ROOT)
    try:
        yield fd
    finally:
        os.close(fd)


def stat_inside(root: int, path: str) -> os.stat_result:
    """lstat(2) inside the root. A path that ends in ``/`` follows a last link and must be a directory.

    :raises OSError: as :func:`open_inside`.
    """
    fd = open_inside(root, path, _LAST)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _link(root: int, path: str) -> str | None:
    """The target of the link at ``path``; "" if it is not a link, ``None`` if it does not exist."""
    try:
        fd = open_inside(root, path, _LAST)
    except OSError as error:
        return None if error.errno in (errno.ENOENT, errno.ENOTDIR) else ""
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else ""
    finally:
        os.close(fd)


def _has_no_link(root: int, path: str, *, last: bool) -> bool:
    """Whether ``path`` exists and no component is a link; without ``last`` the last component may be one."""
    try:
        fd = linux.openat2(root, path, _LAST, 0, _INSIDE | linux.RESOLVE_NO_SYMLINKS)
    except OSError:
        return False
    try:
        return not (last and stat.S_ISLNK(os.fstat(fd).st_mode))
    finally:
        os.close(fd)


def resolve(root: int, path: str, *, last: bool = True) -> str:
    """Returns ``path`` with every symlink followed within the root; ``last``: the final one too.

    Components that don't exist are kept, so that a target to be created resolves too. The returned relative path may be
    outdated already: open it with :func:`open_inside`.

    :raises WharfError: INVALID_ARGUMENT: more than 40 links.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    if todo and ".." not in todo and _has_no_link(root, straight := "/".join(todo[::-1]), last=last):
        return straight
    done: list[str] = []
    links = 0
    missing = 0  # index in ``done`` (from 1) of the first component that doesn't exist; 0: all exist
    while todo:
        part = todo.pop()
        if part == "..":
            if done:
                done.pop()
            missing = 0 if len(done) < missing else missing
            continue
        if (todo or last) and not missing:
            link = _link(root, "/".join((*done, part)))
            if link:
                links += 1
                if links > _MOST_LINKS:
                    raise invalid(f"too many links in {path!r}")
                if link.startswith("/"):
                    done = []
                todo.extend([item for item in link.split("/") if item not in ("", ".")][::-1])
                continue
            if link is None:
                missing = len(done) + 1
        done.append(part)
    return "/".join(done)


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Creates the directory at ``path`` and its missing parents; returns a descriptor (``O_PATH``).

    :raises OSError: it can't be created; NotADirectoryError: a file is in the way.
    """
    parts = [part for part in resolve(root, path).split("/") if part]
    directory = open_inside(root, "", _ROOT)
    try:
        for depth, name in enumerate(parts, 1):
            try:
                below = open_inside(root, "/".join(parts[:depth]), _ROOT)
            except FileNotFoundError:
                os.mkdir(name, mode, dir_fd=directory)
                below = os.open(name, _ROOT | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
    except BaseException:
        os.close(directory)
        raise
    return directory


def make_mountpoint(root: str, path: str, *, directory: bool) -> int:
    """Creates a mount point, as the runtime does: missing directories, and an empty file at the end unless
    ``directory``. Keeps what exists. Returns a descriptor of the mount point (``O_PATH``).

    :raises OSError: it can't be created.
    """
    with _opened(root) as fd:
        try:
            return open_inside(fd, path, os.O_PATH)
        except FileNotFoundError:
            pass
        if directory:
            return make_directories(fd, path)
        above, _, name = resolve(fd, path).rpartition("/")
        parent = make_directories(fd, above)
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
            return os.open(name, _LAST | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
