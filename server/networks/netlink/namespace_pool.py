"""A pool of network namespaces, so that a container's start doesn't wait for the kernel to create one.

Each has its loopback up and one veth with its host end on the host and ``eth0`` inside. Taking one starts the creation
of the next. Everything created here carries the engine's mark, which identifies it after a crash.
"""

import contextlib
import errno
import logging
import os
import secrets
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from threading import Lock

from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, link_add, link_delete, link_set

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Namespace:
    """A namespace bound at ``path``. ``veth``: the host end of ``eth0``, or empty if there is none yet."""

    path: str
    netlink: Netlink
    veth: str = ""
    index: int = 0  # of the prepared eth0, inside

    def ipv6_disabled(self, name: str) -> bool:
        """Whether the pool prepared the interface, so that IPv6 is disabled on it already."""
        return bool(self.index) and name == "eth0"

    def close(self) -> None:
        self.netlink.close()

    def delete(self) -> None:
        """Deletes the namespace; its interfaces are deleted with it."""
        self.netlink.close()
        netns.delete(self.path)


def mark(bridge: str) -> str:
    """The alias of every link of the engine whose default bridge is ``bridge``."""
    return f"wharf:{bridge}"


def veth_name() -> str:
    return f"veth{secrets.token_hex(4)[:7]}"


class NamespacePool:
    """Creates namespaces in advance. Any thread may call :meth:`take`.

    Methods take ``owner``: the path of the user namespace that owns the namespace; "" the host's.

    :param directory: the directory of their bind mounts, prepared by ``netns.prepare``.
    :param executor: creates the next ones in the background.
    :param size: the number of those with ``owner``; of those with another owner one is created in advance, after a
        first one was taken.
    """

    def __init__(
        self, directory: str, host: Netlink, executor: Executor, *, alias: str, mtu: int, size: int = 3, owner: str = ""
    ) -> None:
        self._directory = directory
        self._host = host
        self._executor = executor
        self._alias = alias
        self._mtu = mtu
        self._size = size
        self._owner = owner
        self._lock = Lock()
        self._ready: dict[str, list[Namespace]] = {}
        self._making: Counter[str] = Counter()
        self._closed = False

    def take(self, owner: str) -> Namespace:
        """A namespace with ``eth0``, which the caller owns. Creates one if none is ready."""
        found = self._pop(owner)
        while found and self._host.link(found.veth) is None:  # another program deleted the link
            with contextlib.suppress(OSError):
                found.delete()
            found = self._pop(owner)
        self._refill(owner, self._size if owner == self._owner else 1)
        return found or self.make(owner, veth=True)

    def _pop(self, owner: str) -> Namespace | None:
        with self._lock:
            ready = self._ready.get(owner)
            return ready.pop(0) if ready else None

    def refill(self) -> None:
        """Starts the creation of missing ones in the background."""
        self._refill(self._owner, self._size)

    def _refill(self, owner: str, size: int) -> None:
        with self._lock:
            missing = 0 if self._closed else max(0, size - len(self._ready.get(owner, ())) - self._making[owner])
            self._making[owner] += missing
        for _ in range(missing):
            try:
                self._executor.submit(self._make_one, owner)
            except RuntimeError:  # the daemon is stopping
                self._making[owner] -= 1

    def _make_one(self, owner: str) -> None:
        made = None
        try:
            made = self.make(owner, veth=True)
        except OSError as error:
            log.warning("cannot make a network namespace ahead: %s", error)
        finally:
            with self._lock:
                self._making[owner] -= 1
                if made and not self._closed:
                    self._ready.setdefault(owner, []).append(made)
                    made = None
        if made:
            made.delete()

    def make(self, owner: str, *, veth: bool) -> Namespace:
        """Creates a namespace synchronously."""
        path = f"{self._directory}/{secrets.token_hex(6)}"
        inside = netns.create_owned(path, owner) if owner else netns.create(path)
        namespace = Namespace(path, inside)
        if not veth:
            return namespace
        try:
            namespace.veth = self.add_veth(path, "eth0", self._mtu)
            link = inside.link("eth0")
            assert link is not None
            namespace.index = link.index
            # As dockerd does on a network without IPv6; reverted on one with it.
            netns.without_ipv6(path, "eth0")
        except BaseException:
            namespace.delete()
            raise
        return namespace

    def add_veth(self, path: str, name: str, mtu: int) -> str:
        """Creates a veth from the host into the namespace at ``path``; returns its name on the host."""
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                host = veth_name()
                try:
                    self._host.run(
                        link_add("veth", host, peer=name, peer_netns=target, mtu=mtu),
                        # A port of a bridge needs no address. Browsers on this host would abort all of their
                        # requests for each new address (ERR_NETWORK_CHANGED).
                        link_set(host, alias=self._alias, link_local=False),
                    )
                except FileExistsError:
                    if self._host.link(host) is None:  # the name inside is taken, not the host's
                        raise
                    continue
                return host
        finally:
            os.close(target)

    def delete_link(self, name: str) -> None:
        """Removes a link of the host; a missing one is fine."""
        try:
            self._host.run(link_delete(name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def close(self) -> None:
        """Removes the ready namespaces."""
        with self._lock:
            self._closed = True
            ready, self._ready = self._ready, {}
        for namespace in chain.from_iterable(ready.values()):
            with contextlib.suppress(OSError):
                namespace.delete()
