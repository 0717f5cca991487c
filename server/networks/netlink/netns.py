"""Named network namespaces: a thread enters and leaves them, without a fork.

A bind mount on a file keeps a namespace alive, as in ip-netns(8). All functions block for microseconds to a few
milliseconds: call them in a thread. The file's name is the last part of the sandbox key.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from engine.common.system import idmap, linux, mounts, private
from server.networks.netlink.rtnetlink import Netlink, link_set

_T = TypeVar("_T")


def prepare(directory: str) -> None:
    """Prepares ``directory`` for namespaces: makes it a private mount, so that no copy of a bind mount in another mount
    namespace keeps a removed namespace alive. A second call does nothing."""
    private.restrict_directory(directory)
    directory = os.path.realpath(directory)
    if not mounts.is_mountpoint(directory):
        linux.mount(directory, directory, None, linux.MS_BIND)
    linux.mount(None, directory, None, linux.MS_PRIVATE)


def unprepare(directory: str) -> None:
    """Undoes :func:`prepare` if no namespace is left."""
    directory = os.path.realpath(directory)
    with contextlib.suppress(FileNotFoundError):
        if not os.listdir(directory) and mounts.is_mountpoint(directory):
            linux.umount(directory, linux.MNT_DETACH)
            os.rmdir(directory)


def create_owned(path: str, owner: str) -> Netlink:
    """As :func:`create`; the user namespace at ``owner`` owns it, whose root has all capabilities in it."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    try:
        with idmap.network_namespace(owner) as made:
            linux.mount(made, path, None, linux.MS_BIND)
        netlink = open_netlink(path)
        try:
            netlink.run(link_set(index=1, up=True))
        except BaseException:
            netlink.close()
            raise
    except BaseException:
        delete(path)
        raise
    return netlink


def create(path: str) -> Netlink:
    """Creates a namespace bound at ``path``, its loopback up; returns a netlink socket inside it.

    :raises FileExistsError: ``path`` is taken.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.unshare(linux.CLONE_NEWNET)
        netlink = None
        try:
            linux.mount("/proc/thread-self/ns/net", path, None, linux.MS_BIND)
            netlink = Netlink()
            netlink.run(link_set(index=1, up=True))
        except BaseException:
            if netlink:
                netlink.close()
            raise
        finally:
            _return(home)
    except BaseException:
        delete(path)
        raise
    finally:
        os.close(home)
    return netlink


def _return(home: int) -> None:
    # A thread that stays in the wrong namespace would change the wrong devices later.
    try:
        linux.setns(home, linux.CLONE_NEWNET)
    except OSError:
        os.abort()


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Runs a block of this thread inside the namespace at ``path``."""
    with linux.in_namespace(path, linux.CLONE_NEWNET):
        yield


def call(path: str, function: Callable[[], _T]) -> _T:
    """Calls ``function`` in this thread inside the namespace at ``path``, and returns its result."""
    with inside(path):
        return function()


def open_netlink(path: str) -> Netlink:
    """A netlink socket inside the namespace at ``path``; it stays there."""
    return call(path, Netlink)


def delete(path: str) -> None:
    """Unbinds the namespace at ``path``; its devices are deleted with its last process. A missing one is fine."""
    try:
        linux.umount(path, linux.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def exists(path: str) -> bool:
    """Whether a namespace is bound at ``path`` (not just a left-over file)."""
    try:
        return linux.filesystem_type(path) == 0x6E736673  # NSFS_MAGIC
    except FileNotFoundError:
        return False


def sysctl(name: str, value: str | None = None) -> str:
    """Reads or writes a ``net.…`` sysctl of this thread's namespace.

    :param name: with ``/`` between its parts if a device's name may have dots: ``net/ipv4/conf/eth0.5/…``.
    """
    path = "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
    if value is None:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    with open(path, "w", encoding="ascii") as file:
        file.write(value)
    return value


def without_ipv6(path: str, interface: str) -> None:
    """Disables IPv6 for an interface inside the namespace at ``path``; does nothing on a kernel without IPv6."""
    with contextlib.suppress(FileNotFoundError):
        sysctls(path, {f"net/ipv6/conf/{interface}/disable_ipv6": "1"})


def sysctls(path: str, values: Mapping[str, str]) -> None:
    """Writes several sysctls inside the namespace at ``path``."""
    if values:
        with inside(path):
            for name, value in values.items():
                sysctl(name, value)
