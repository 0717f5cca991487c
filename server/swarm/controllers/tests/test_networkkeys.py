"""The keys of the encrypted networks."""

import asyncio
from pathlib import Path

from server.networks.overlay.model import Keyring
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.networkkeys import INTERVAL, NetworkKeyRotation
from server.swarm.controllers.tests.world import START, ManualClock
from server.swarm.model import networkkeys
from server.swarm.model.objects import Network, NetworkKeys
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tests.opened import opened


class _Sealer:
    def seal(self, data: bytes, /) -> str:
        return data.hex()

    def open(self, text: str, /) -> bytes:
        return bytes.fromhex(text)


def _keyring(state: State) -> Keyring:
    keys = state.tables.network_keys
    assert keys is not None
    return networkkeys.opened(_Sealer(), keys)


async def _next(state: State, former: NetworkKeys) -> NetworkKeys | None:
    subscription = state.subscribe()
    try:
        while state.tables.network_keys == former:
            await subscription.next()
        return state.tables.network_keys
    finally:
        subscription.close()


def test_keys_are_rotated_and_end_with_the_last_network(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (_, state), asyncio.timeout(20):
            clock = ManualClock()
            made = networkkeys.make(_Sealer(), START)
            secret = Network(id="n1", name="secret", options={"encrypted": ""})
            await state.commit([Put(made), Put(secret), Put(Network(id="n2", name="open"))])
            first = _keyring(state)
            assert len({first.older, first.primary, first.newer}) == 3
            running = asyncio.create_task(NetworkKeyRotation(state, _Sealer(), clock=clock).run())
            stored = state.tables.network_keys
            assert stored is not None
            await clock.set(START + INTERVAL - SECOND)
            await asyncio.sleep(0.02)
            assert state.tables.network_keys == stored
            moment = START
            for _ in range(3):
                before = _keyring(state)
                moment += INTERVAL + SECOND
                # Until a loop that did not wait yet does.
                while state.tables.network_keys == stored:
                    await clock.set(moment)
                    await asyncio.sleep(0.005)
                stored = state.tables.network_keys
                after = _keyring(state)
                # Who has only the former keys receives what the others send now, and they receive what it sends.
                assert (after.older, after.primary) == (before.primary, before.newer)
                assert after.newer not in (before.older, before.primary, before.newer)
            await state.commit([Delete(state.tables.networks.get("n2"))])
            assert stored is not None
            assert state.tables.network_keys == stored
            await state.commit([Delete(state.tables.networks.get("n1"))])
            assert await _next(state, stored) is None
            running.cancel()

    asyncio.run(scenario())
