"""Rotates the keys of the encrypted networks, and deletes them with the last of these networks."""

from collections.abc import Sequence

from server.swarm.controllers.clock import SECOND, Clock, SystemClock, changes_until
from server.swarm.model import networkkeys
from server.swarm.model.objects import Network, NetworkKeys
from server.swarm.model.sealer import Sealer
from server.swarm.state.state import Delete, Operation, Put, State

#: ns, as in SwarmKit (manager/keymanager).
INTERVAL = 12 * 3600 * SECOND


class NetworkKeyRotation:
    """A part of the leader."""

    def __init__(self, state: State, sealer: Sealer, *, clock: Clock | None = None) -> None:
        self._state = state
        self._sealer = sealer
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        subscription = self._state.subscribe()
        try:
            while True:
                await self._state.transact(self._changes)
                while True:
                    keys = self._state.tables.network_keys
                    due = None if keys is None else keys.updated_ns + INTERVAL
                    events = await changes_until(due, subscription, self._clock)
                    if not events or any(isinstance(event.item, Network | NetworkKeys) for event in events):
                        break
        finally:
            subscription.close()

    def _changes(self) -> Sequence[Operation]:
        keys, now = self._state.tables.network_keys, self._clock.now()
        if keys is None:
            return []
        if not any(network.encrypted for network in self._state.tables.networks):
            return [Delete(keys)]
        if now < keys.updated_ns + INTERVAL:
            return []
        return [Put(networkkeys.rotated(self._sealer, keys, now))]
