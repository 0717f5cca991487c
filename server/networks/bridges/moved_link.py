"""A link that a network plugin made on the host: it moves into the container's namespace, and back. Blocks."""

import contextlib
import logging
import os
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError
from server.networks.bridges.interfaces import InterfaceSpec
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import Namespace, NamespacePool
from server.networks.netlink.rtnetlink import Netlink, link_delete, link_set

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MovedLink:
    """The driver's part of an endpoint; see ``interfaces.Attacher``. ``source`` is the link's name on the host."""

    host: Netlink
    source: str

    def attach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec) -> str:
        link = self.host.link(self.source)
        if link is None:
            raise self._failed(f'failed to get link by name "{self.source}": Link not found')
        target = os.open(space.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The name changes with the namespace: the container may have an interface with the host's name.
            self.host.run(link_set(index=link.index, rename=spec.name, netns=target, up=False))
        except OSError as error:
            raise self._failed((error.strerror or str(error)).lower()) from error
        finally:
            os.close(target)
        return ""

    def detach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec, veth: str) -> None:
        _move_back(space.netlink, spec.name, self.source)

    def _failed(self, reason: str) -> WharfError:
        return WharfError(Kind.INTERNAL, f"failed to add interface {self.source} to sandbox: {reason}")


def restore(path: str, name: str, source: str) -> None:
    """Moves the link ``name`` of the namespace at ``path`` back to the host as ``source``; a missing one is fine.
    Failures are logged."""
    try:
        with contextlib.closing(netns.open_netlink(path)) as netlink:
            _move_back(netlink, name, source)
    except OSError as error:
        log.warning("link %s stays in namespace %s: %s", source, path, error)


def discard(path: str, name: str, source: str) -> None:
    """Deletes the link ``name`` of the namespace at ``path``; moves it back if it is a device of the hardware. A
    missing one is fine. Failures are logged."""
    try:
        with contextlib.closing(netns.open_netlink(path)) as netlink:
            link = netlink.link(name)
            if link is not None and link.kind:
                netlink.run(link_delete(name))
            else:
                _move_back(netlink, name, source)
    except OSError as error:
        log.warning("link %s stays in namespace %s: %s", source, path, error)


def _move_back(inside: Netlink, name: str, source: str) -> None:
    link = inside.link(name)
    if link is None:
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside.run(link_set(index=link.index, rename=source, netns=home, up=False))
    finally:
        os.close(home)
