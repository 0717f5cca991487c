"""Bounds how often an address may present a wrong join token. Whoever reaches the port may present one, which costs the
manager two decryptions, and could guess for as long as the token stays."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network

from engine.common import limits
from engine.common.errors import Kind, Reason, WharfError
from server.swarm.operations.admission import WrongToken

#: Seconds after which one of ``SWARM_WRONG_TOKENS`` failures is forgotten.
_FORGET = 6.0
#: The most addresses that are remembered.
_ADDRESSES = 1024


class Attempts:
    """Remembers for each address when all its failures are forgotten. ``now``: seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._forgotten: dict[str, float] = {}

    @contextmanager
    def attempt(self, address: str) -> Iterator[None]:
        """An attempt to join from ``address``. It counts if its token is wrong, which is known at the first step of the
        block that waits: others can't begin before.

        :raises WharfError: RESOURCE_EXHAUSTED (429): there were too many.
        """
        source = _source(address)
        if self._forgotten.get(source, 0.0) > self._now() + (limits.SWARM_WRONG_TOKENS - 1) * _FORGET:
            sentence = f"too many wrong join tokens came from {source} (SWARM_WRONG_TOKENS): try again in {_FORGET:g} s"
            raise WharfError(Kind.RESOURCE_EXHAUSTED, sentence, reason=Reason.TOO_MANY_REQUESTS)
        try:
            yield
        except WrongToken:
            self._count(source)
            raise

    def _count(self, source: str) -> None:
        now = self._now()
        if source not in self._forgotten and len(self._forgotten) >= _ADDRESSES:
            self._forgotten = {each: end for each, end in self._forgotten.items() if end > now}
            if len(self._forgotten) >= _ADDRESSES:
                # The one with the fewest failures.
                del self._forgotten[min(self._forgotten, key=self._forgotten.__getitem__)]
        self._forgotten[source] = max(self._forgotten.get(source, now), now) + _FORGET


def _source(address: str) -> str:
    """The address, or of IPv6 its network of 64 bits, in which a host has as many addresses as it wants."""
    ip = ip_address(address.partition("%")[0])
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(ip.ipv4_mapped or ip_network((int(ip) >> 64 << 64, 64)))
