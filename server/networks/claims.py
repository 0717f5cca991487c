"""Names that one engine holds in its network namespace, so that no second engine manages the same bridge or table.

A claim is an abstract unix socket (unix(7)). The kernel keeps such names per network namespace, so a claim is seen by
an engine with other roots, and also by one in another mount namespace. It is gone when its process is, also after
SIGKILL. The socket is only bound: nothing is sent to it. Calls block and belong in a thread.
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
_PAUSE = 0.05  # seconds between two tries


class Claimed(Exception):
    """Another engine holds the name. ``holder``: its process, as text for a message."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is managed by another engine in this network namespace ({holder})")
        self.holder = holder


class Claims:
    """The claims of one engine, all in the network namespace of the calling threads."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}
        self._lock = Lock()

    def take(self, name: str, *, sharer: str = "", wait: float = 0.0) -> None:
        """Holds ``name`` until :meth:`release`; harmless if it is held already.

        :param sharer: "": for this engine alone. Else this engine's name: others that share it may hold it, too.
        :param wait: seconds to try again, for an owner that is ending.
        :raises Claimed: another engine holds it, or shares it while it is asked for alone.
        """
        end = time.monotonic() + wait
        with self._lock:
            while name not in self._held:
                try:
                    self._held[name] = _bound(name, sharer)
                except Claimed:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(_PAUSE)

    def holds(self, name: str) -> bool:
        return name in self._held

    def release(self, name: str) -> None:
        """Gives a name back; one that is not held is fine."""
        with self._lock:
            sock = self._held.pop(name, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Gives all names back."""
        for name in list(self._held):
            self.release(name)


def _bound(name: str, sharer: str) -> socket.socket:
    """:raises Claimed:"""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        own = _PREFIX + name + (f"/{sharer}" if sharer else "")
        try:
            sock.bind(f"\0{own}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _refuse(name, own)
        # Looked at when the own name is bound: of two that start at once, at least one sees the other.
        for other in _names():
            if other != own and (other == _PREFIX + name or (not sharer and other.startswith(f"{_PREFIX}{name}/"))):
                _refuse(name, other)
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse(name: str, held: str) -> None:
    """:raises Claimed: unless the holder is no engine: any local user can bind a name, but only root runs an engine."""
    pid, uid = _holder(held)
    if uid:
        said = "process %d of user %d, which is no engine, holds the name %s: an engine behind it would go unnoticed"
        log.warning(said, pid, uid, held)
        return
    raise Claimed(name, f"PID {pid}" if pid else "its process is not visible from here")


def _names() -> dict[str, int]:
    """Every abstract name of this thread's network namespace that is an engine's, with its socket's inode."""
    found = {}
    with open("/proc/thread-self/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and (path := fields[7].rstrip("\n")).startswith(f"@{_PREFIX}"):
                found[path[1:]] = int(fields[6])
    return found


def _holder(held: str) -> tuple[int, int]:
    """The process that holds a name and its user; (0, 0): none that can be seen."""
    inode = _names().get(held)
    for entry in os.listdir("/proc") if inode else ():
        if not re.fullmatch(r"\d+", entry):
            continue
        with contextlib.suppress(OSError):  # it ends meanwhile
            for number in os.listdir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/fd/{number}") == f"socket:[{inode}]":
                        return int(entry), os.stat(f"/proc/{entry}").st_uid
    return 0, 0
