"""Snapshots while the collector is running."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from engine.api.client import Engine
from engine.api.rpc import current_lease
from engine.common.errors import not_found
from server.registry.unpack import lease_snapshot


class Store:
    """Snapshots of which every call collects all that no lease protects; a test can't time that from outside."""

    snapshotter = "overlayfs"

    def __init__(self, *there: str) -> None:
        self.there, self.leased = set(there), set[str]()

    def collect(self) -> None:
        self.there &= self.leased

    async def stat(self, key: str) -> None:
        found = key in self.there
        self.collect()
        if not found:
            raise not_found(f"snapshot {key} does not exist: not found")

    async def add_resource(self, lease: str, key: str, kind: str) -> None:
        assert (lease, kind) == ("build", "snapshots/overlayfs")
        self.leased.add(key)
        self.collect()


def test_leased_snapshots_exist() -> None:
    async def main() -> None:
        store = Store("found", "other")
        engine = cast(Engine, cast(Any, SimpleNamespace(snapshots=store, leases=store)))
        token = current_lease.set("build")
        try:
            assert await lease_snapshot(engine, "found")
            store.collect()
            assert store.there == {"found"}
            assert not await lease_snapshot(engine, "gone")
            # A snapshot created now stays: the lease protects it.
            store.there.add("gone")
            store.collect()
            assert store.there == {"found", "gone"}
        finally:
            current_lease.reset(token)

    asyncio.run(main())
