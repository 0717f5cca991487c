"""Bounds the connections to a port."""

from collections import Counter

from server.http.admission import Connection

#: The most connections to a port, and from one address: a node has a few. Those without a certificate have numbers of
#: their own, so that strangers leave room for nodes.
_CONNECTIONS, _OF_ADDRESS = 20_000, 1000
_STRANGERS, _STRANGERS_OF_ADDRESS = 256, 64


class _Bound:
    """Counts connections, of all addresses and of each."""

    def __init__(self, most: int, of_address: int) -> None:
        self._most, self._of_address = most, of_address
        self._addresses: dict[Connection, str] = {}
        self._count: Counter[str] = Counter()

    def add(self, connection: Connection, address: str) -> bool:
        """False: there are too many."""
        if len(self._addresses) >= self._most or self._count[address] >= self._of_address:
            return False
        self._addresses[connection] = address
        self._count[address] += 1
        return True

    def remove(self, connection: Connection) -> None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]


class Connections:
    """Bounds the connections: whoever reaches the port can open some without a certificate."""

    def __init__(self) -> None:
        self._nodes = _Bound(_CONNECTIONS, _OF_ADDRESS)
        self._strangers = _Bound(_STRANGERS, _STRANGERS_OF_ADDRESS)

    def opened(self, connection: Connection) -> None:
        peer, tls = (connection.transport.get_extra_info(name) for name in ("peername", "ssl_object"))
        bound = self._nodes if tls is not None and tls.getpeercert() else self._strangers
        if not bound.add(connection, str(peer[0]) if peer else ""):
            connection.transport.abort()

    def closed(self, connection: Connection) -> None:
        self._nodes.remove(connection)
        self._strangers.remove(connection)
