"""The null device and the pseudo-terminals of containers."""

import contextlib
import fcntl
import os
import stat

from engine.shim.kernel import syscalls

_TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h
_NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt


def sealed_null() -> int:
    """A descriptor of ``/dev/null`` on a read-only mount of its own: it reads and writes as usual, but its user can't
    change the owner and mode of the host's device. (crun makes an exec's user the owner of its streams.) The
    plain device on Linux before 5.12 and on hosts that allow no mounts."""
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, os.devnull, syscalls.OPEN_TREE_CLONE)
        try:
            syscalls.set_mount_attributes(tree, syscalls.MOUNT_ATTR_RDONLY)
            return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(tree)
    except OSError:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def return_null(pid: int) -> None:
    """Makes root the owner of the ``/dev/null`` of a container that is created but not started.

    A container without input has its own ``/dev/null`` as stdin, and crun makes the user the owner of its streams: that
    user could then change the device's mode for the whole container, and for the host if ``/dev`` is the host's. runc
    excludes the device.
    """
    with contextlib.suppress(OSError):
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
            null = syscalls.openat2(root, "dev/null", os.O_PATH, resolve)
        finally:
            os.close(root)
        try:
            found = os.fstat(null)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL_DEVICE and (found.st_uid or found.st_gid):
                os.chown(f"/proc/self/fd/{null}", 0, 0)
        finally:
            os.close(null)


def open_terminal(master: int) -> int:
    """Opens the slave of a pty, which may be in a mount namespace that this process can't see (``ioctl_tty(2)``,
    TIOCGPTPEER).

    :raises OSError: Linux before 4.13.
    """
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
