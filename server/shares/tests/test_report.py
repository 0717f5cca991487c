"""What clients see of accounts."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.common import limits
from engine.common.errors import WharfError
from server.access.caller import Caller
from server.access.scope import Scope
from server.shares.report import usage
from server.shares.store import Store, Usage


@dataclass
class Accounts:
    """The accounts of all days in a store."""

    store: Store

    async def usage(self, days: int, owner: str | None, most: int) -> list[Usage]:
        return await self.store.usage(owner=owner, most=most)

    async def sums(self, days: int, owner: str | None) -> list[Usage]:
        return await self.store.sums(owner=owner)


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    store = Store(tmp_path)
    rows = [
        Usage("2026-01-01", "alice", "c1", "web", cpu_seconds=1.5, disk_bytes=10),
        Usage("2026-01-01", "alice", "c2", "db", cpu_seconds=2, memory_gib_hours=1, received_bytes=7),
        Usage("2026-01-01", "alice:0f3c", "c3", "job", cpu_seconds=4, disk_bytes=5),
        Usage("2026-01-02", "alice", "c1", "web", gpu_hours=0.5),
        Usage("2026-01-01", "", "c4", "own", sent_bytes=3),
        Usage("2026-01-01", "bob", "c5", "web"),
    ]
    asyncio.run(store.add(rows, {}))
    yield Accounts(store)
    store.close()


def shown(accounts: Accounts, caller: Caller, *, containers: bool = False) -> list[tuple[object, ...]]:
    rows = asyncio.run(usage(accounts, caller, 7, containers=containers))
    return [(row.day, row.user, row.container_name, row.cpu_seconds, row.disk) for row in rows]


def test_administrators_see_the_sums_of_each_user(accounts: Accounts) -> None:
    assert shown(accounts, Caller()) == [
        ("2026-01-01", "", "", 0.0, 0),
        ("2026-01-01", "alice", "", 7.5, 15),
        ("2026-01-01", "bob", "", 0.0, 0),
        ("2026-01-02", "alice", "", 0.0, 0),
    ]
    (alice,) = (row for row in asyncio.run(usage(accounts, Caller(), 7)) if row.memory_gib_hours)
    assert (alice.user, alice.bytes_in, alice.memory_gib_hours) == ("alice", 7, 1.0)


def test_users_see_their_own(accounts: Accounts) -> None:
    alice = Caller("alice", administrator=False)
    assert [row[:2] for row in shown(accounts, alice)] == [("2026-01-01", "alice"), ("2026-01-02", "alice")]
    names = [row[2] for row in shown(accounts, alice, containers=True)]
    assert names == ["db", "web", "job", "web"]
    job = Caller("alice:0f3c", administrator=False)
    assert shown(accounts, job) == [("2026-01-01", "alice", "", 4.0, 5)]
    bob = Caller(scope=Scope("bob", owners=frozenset(("bob",))))
    assert [row[1] for row in shown(accounts, bob)] == ["bob"]


def test_too_many_containers(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USAGE_ROWS", 5)
    with pytest.raises(WharfError, match="USAGE_ROWS"):
        shown(accounts, Caller(), containers=True)
