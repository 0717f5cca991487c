"""Names that one engine claims in its network namespace, so that no second engine manages the same bridge or table.

A claim is an abstract unix socket (unix(7)). The kernel keeps such names per network namespace, so engines with other
roots, and also those in another mount namespace, see a claim. The kernel removes it when its process exits, also after
SIGKILL. The socket is only bound; it receives nothing. Calls block: call them in a thread.
"""

import contextlib
import errno
import logging
import os
import re
import socket
import time
from threading import Lock

log = logging.getLogger(__name__)

_PREFIX = "wharf-engine/"
_PAUSE = 0.05  # seconds between two attempts


class ClaimConflict(Exception):
    """Another engine has the name. ``holder``: its process, as text for a message."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is managed by another engine in this network namespace ({holder})")
        self.holder = holder


class Claims:
    """The claims of one engine, all in the network namespace of the calling threads."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}
        self._lock = Lock()

    def claim(self, name: str, *, sharer: str = "", wait: float = 0.0) -> None:
        """Claims ``name`` until :meth:`release`; does nothing if it is claimed already.

        :param sharer: "": exclusive. Else this engine's name: other sharing engines may claim it too.
        :param wait: seconds to retry, while an owner exits.
        :raises ClaimConflict: another engine has it, or shares it while exclusive use is requested.
        """
        end = time.monotonic() + wait
        with self._lock:
            while name not in self._held:
                try:
                    self._held[name] = _bound(name, sharer)
                except ClaimConflict:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(_PAUSE)

    def owns(self, name: str) -> bool:
        return name in self._held

    def release(self, name: str) -> None:
        """Releases a name; does nothing if it isn't claimed."""
        with self._lock:
            sock = self._held.pop(name, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Releases all names."""
        for name in list(self._held):
            self.release(name)


def _bound(name: str, sharer: str) -> socket.socket:
    """Binds the name.

    :raises ClaimConflict: another engine has it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        own = _PREFIX + name + (f"/{sharer}" if sharer else "")
        try:
            sock.bind(f"\0{own}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _refuse(name, own)
        # Check after binding our own name: of two engines that start concurrently, at least one sees the other.
        for other in _names():
            if other != own and (other == _PREFIX + name or (not sharer and other.startswith(f"{_PREFIX}{name}/"))):
                _refuse(name, other)
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse(name: str, held: str) -> None:
    """Refuses the name if its holder is an engine: any local user can bind a name, but only root runs an engine.

    :raises ClaimConflict: the holder runs as root, or is not visible.
    """
    pid, uid = _holder(held)
    if uid:
        message = "process %d of user %d, which is no engine, has the name %s: an engine with this name is not detected"
        log.warning(message, pid, uid, held)
        return
    raise ClaimConflict(name, f"PID {pid}" if pid else "its process is not visible in this namespace")


def _names() -> dict[str, int]:
    """All engines' abstract names in this thread's network namespace, with their sockets' inodes."""
    found = {}
    with open("/proc/thread-self/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and (path := fields[7].rstrip("\n")).startswith(f"@{_PREFIX}"):
                found[path[1:]] = int(fields[6])
    return found


def _holder(held: str) -> tuple[int, int]:
    """The process that has a name, and its user; (0, 0) if none is visible."""
    inode = _names().get(held)
    for entry in os.listdir("/proc") if inode else ():
        if not re.fullmatch(r"\d+", entry):
            continue
        with contextlib.suppress(OSError):  # the process exits meanwhile
            for number in os.listdir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/fd/{number}") == f"socket:[{inode}]":
                        return int(entry), os.stat(f"/proc/{entry}").st_uid
    return 0, 0
