"""Which user a connection of a unix socket counts for."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.common.errors import WharfError
from server.access.connections import Connections
from server.access.identity import Account, Identity
from server.access.policy import Policy

POLICY = Policy(
    {
        "users": {"alice": "few", "bob": "few"},
        "administrators": {"users": ["carol"], "groups": ["4242"]},
        "roles": {"few": {"connections": 2}},
    }
)
ACCOUNTS = {10001: "alice", 10002: "bob", 10003: "carol", 10004: "stranger"}
#: Processes in containers, by their owner.
OWNERS = {71: "alice", 72: "alice:job", 73: ""}


@dataclass(eq=False)
class Fake:
    """A connection, its transport and its socket."""

    uid: int
    pid: int = 1
    groups: tuple[int, ...] = ()
    family: int = socket.AF_UNIX
    refused: list[str] = field(default_factory=list)
    aborted: bool = False

    @property
    def transport(self) -> "Fake":
        return self

    def get_extra_info(self, name: str) -> "Fake | None":
        return self if name == "socket" else None

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:
        if option == socket.SO_PEERCRED:
            return struct.pack("iII", self.pid, self.uid, self.uid)
        return struct.pack(f"{len(self.groups)}I", *self.groups)

    def refuse(self, error: WharfError) -> None:
        self.refused.append(error.message)

    def abort(self) -> None:
        self.aborted = True

    @property
    def served(self) -> bool:
        return not self.refused and not self.aborted


def opened(fakes: Iterable[Fake], connections: Connections | None = None) -> list[bool]:
    """Opens connections one after the other; which are served."""
    fakes = list(fakes)
    identity = Identity(POLICY, OWNERS.get, by_uid=lambda uid: Account(ACCOUNTS[uid], uid) if uid in ACCOUNTS else None)

    async def run() -> None:
        counted = connections or Connections(identity)
        for fake in fakes:
            counted.opened(fake)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))

    asyncio.run(run())
    return [fake.served for fake in fakes]


def test_each_user_has_a_bound() -> None:
    assert opened(Fake(uid) for uid in (10001, 10001, 10002, 10001, 10002, 10002)) == [True] * 3 + [False, True, False]


def test_administrators_have_none() -> None:
    assert opened([*(Fake(0) for _ in range(5)), *(Fake(10003) for _ in range(5))]) == [True] * 10
    assert opened(Fake(10001, groups=(4242,)) for _ in range(5)) == [True] * 5


def test_processes_in_containers_count_for_the_owner() -> None:
    """Those with subordinate ids; root there has the uid of the owner."""
    ids = [Fake(10001), Fake(100007, pid=71), Fake(100008, pid=72), Fake(10002), Fake(200001, pid=73)]
    assert opened(ids) == [True, True, False, True, True]


def test_clients_without_a_role() -> None:
    assert opened(Fake(10004) for _ in range(1025)) == [True] * 1024 + [False]
    foreign = [Fake(300000 + number) for number in range(1025)]
    assert sorted(opened(foreign)) == [False] + [True] * 1024


def test_an_ended_connection_is_not_counted() -> None:
    identity = Identity(POLICY, OWNERS.get, by_uid=lambda uid: Account(ACCOUNTS[uid], uid))

    async def run() -> None:
        connections = Connections(identity)
        for _ in range(10):
            first, second = Fake(10001, pid=os.getpid()), Fake(10001)
            connections.opened(first)
            connections.opened(second)
            await asyncio.sleep(0.05)
            third = Fake(10001)
            connections.opened(third)
            assert (first.served, second.served, third.served) == (True, True, False)
            for fake in (first, second, third):
                connections.closed(fake)
                connections.closed(fake)
        early = Fake(10002)
        connections.opened(early)
        connections.closed(early)
        await asyncio.sleep(0.05)
        for fake in (own := [Fake(10002) for _ in range(3)]):
            connections.opened(fake)
        assert [fake.served for fake in own] == [True, True, False]

    asyncio.run(run())
