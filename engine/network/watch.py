"""Tells when somebody changes this host's nftables rules: a firewall that is loaded anew takes ours along.

The kernel announces every transaction, our own too. What was changed is of no interest here, so the socket is kept
too small for more than the news that something was; the rest is dropped.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

_NETFILTER = 12  # NETLINK_NETFILTER
_SOL_NETLINK, _ADD_MEMBERSHIP, _NO_ENOBUFS = 270, 1, 5
_NFTABLES = 7  # NFNLGRP_NFTABLES
#: Seconds to wait for more: a loader may need several transactions.
_SETTLE = 0.25


class RulesetWatch:
    """Calls ``changed`` on the loop a moment after the rules of this thread's network namespace changed.

    :raises OSError: the kernel has no nftables.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            # uvloop watches a socket no more that has an error pending.
            self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES)
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        for _ in range(16):
            try:
                self._socket.recv(4096)
            except BlockingIOError:
                break
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._changed()

    def close(self) -> None:
        """Stops watching; harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(ValueError):
            self._loop.remove_reader(self._socket)
        self._socket.close()
