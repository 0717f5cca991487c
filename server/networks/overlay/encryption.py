"""The encryption of a swarm's networks between its nodes: security associations of IPsec in the kernel.

All encrypted networks share them: there is one for each direction, other node and key. Each has a key of its own, which
follows from the swarm's key and both addresses, so that no two of them use a nonce of AES-GCM twice. They are made of
what the swarm says now, and compared with what the kernel has. So they outlive a daemon, whose keys are not stored.
"""

import errno
import hmac
from collections.abc import Collection, Iterable, Mapping

from engine.common.errors import internal
from server.networks.context import NetworkContext
from server.networks.netlink import xfrm
from server.networks.netlink.xfrm import KEY_BYTES, Association
from server.networks.overlay.model import NO_ESP, Keyring

#: Security parameter indexes from 1 to 255 are reserved (RFC 4303, section 2.1).
_FIRST_SPI = 256


class Encryption:
    """``apply`` and ``restore`` block: call them in a thread, one at a time."""

    def __init__(self, context: NetworkContext) -> None:
        self._context = context
        self._keys: Keyring | None = None
        # This node's addresses, also those of an earlier daemon, that may have associations.
        self._known = set(self._wanted())

    def replace(self, keys: Keyring) -> bool:
        """Returns whether these are others."""
        changed, self._keys = keys != self._keys, keys
        return changed

    def _wanted(self) -> Mapping[str, set[str]]:
        """The other nodes with which each address of this one exchanges encrypted packets."""
        found: dict[str, set[str]] = {}
        for network in self._context:
            if network.encrypted and network.vxlan_local:
                found.setdefault(network.vxlan_local, set()).update(network.peers.values())
        return found

    def restore(self) -> bool:
        """Restores policies, too; returns whether something was missing.

        :raises WharfError: INTERNAL: the kernel refused.
        """
        missing = False
        with self._context.devices:
            ends = {(each.vxlan_local, each.vxlan_port) for each in self._context if each.encrypted and each.ready}
            try:
                with xfrm.open_channel() as channel:
                    for local, port in ends:
                        if local and not xfrm.requires_encryption(channel, local, port):
                            xfrm.require_encryption(channel, local, port)
                            missing = True
            except OSError as error:
                raise internal(f"networks are not encrypted any more: {error.strerror or error}") from error
        return self.apply() or missing

    def apply(self) -> bool:
        """Makes the kernel's associations equal to those of the networks' peers and the keys. Returns whether some were
        missing.

        :raises WharfError: INTERNAL: the kernel refused.
        """
        missing = False
        wanted = self._wanted()
        try:
            with xfrm.open_channel() as channel:
                for local in self._known | wanted.keys():
                    peers = wanted.get(local, set())
                    present = xfrm.associations(channel, local)
                    needed = self._needed(local, peers, present)
                    missing |= not needed <= present
                    # First the new ones: a rotation of the keys interrupts nothing.
                    xfrm.add(channel, needed - present)
                    xfrm.remove(channel, present - needed)
        except OSError as error:
            lacks = error.errno in (errno.EPROTONOSUPPORT, errno.ENOSYS)
            raise internal(f"networks can't be encrypted: {NO_ESP if lacks else (error.strerror or error)}") from error
        self._known = set(wanted)
        return missing

    def _needed(self, local: str, peers: Iterable[str], present: Collection[Association]) -> set[Association]:
        if self._keys is None:
            # As long as the keys are not known, those of an earlier daemon stay.
            return {each for each in present if {each.source, each.destination} - {local} <= set(peers)}
        keys = self._keys
        found = set()
        for peer in peers:
            found.add(association(keys.primary, local, peer))
            found.update(association(key, peer, local) for key in (keys.older, keys.primary, keys.newer))
        return found


def association(key: bytes, source: str, destination: str) -> Association:
    """The association of one direction by one of the swarm's keys: both nodes make the same."""
    digest = hmac.digest(key, f"wharf esp {source} {destination}".encode(), "sha256")
    number = int.from_bytes(digest[KEY_BYTES : KEY_BYTES + 4], "big")
    return Association(source, destination, max(number, _FIRST_SPI), digest[:KEY_BYTES])
