"""Makes, rotates and opens the keys of the encrypted networks."""

import os
from dataclasses import replace

from server.networks.overlay.model import Keyring
from server.swarm.model.objects import NETWORK_KEYS, NetworkKeys
from server.swarm.model.sealer import Opener, Sealer

_BYTES = 32


def make(sealer: Sealer, now: int) -> NetworkKeys:
    """``now``: ns since the epoch."""
    return NetworkKeys(id=NETWORK_KEYS, created_ns=now, updated_ns=now, sealed=sealer.seal(os.urandom(3 * _BYTES)))


def rotated(sealer: Sealer, former: NetworkKeys, now: int) -> NetworkKeys:
    """Each key takes the next place: nodes know ``newer``, which becomes the primary one, since the last rotation."""
    keys = sealer.open(former.sealed)[_BYTES:] + os.urandom(_BYTES)
    return replace(former, sealed=sealer.seal(keys), updated_ns=now)


def opened(opener: Opener, keys: NetworkKeys) -> Keyring:
    """:raises WharfError: INTERNAL: they can't be opened."""
    data = opener.open(keys.sealed)
    return Keyring(*(data[at : at + _BYTES] for at in range(0, 3 * _BYTES, _BYTES)))
