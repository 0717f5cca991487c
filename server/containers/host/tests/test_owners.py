"""The ids of owners' containers."""

import asyncio
import os
import pwd
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.ids import IdMapping
from server.containers.host import owners
from server.containers.host.owners import BLOCK, OwnerIds

# A user of every host, without subordinate ids in these tests.
DAEMON = pwd.getpwnam("daemon")


class Settings:
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.stored.get(key)

    async def put(self, key: str, name: str | None, document: bytes) -> None:
        await asyncio.sleep(0)
        self.stored[key] = document


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    paths = tmp_path / "subuid", tmp_path / "subgid"
    for name, path in zip(("SUBUID", "SUBGID"), paths, strict=True):
        path.write_text("other:1000000:65536\n")
        monkeypatch.setattr(owners, name, str(path))
    return paths


def pool(first: int = 1_000_000, blocks: int = 4) -> owners.Pool:
    return first, first + blocks * BLOCK - 1


def test_a_user_of_the_host_is_root_in_its_containers(files: tuple[Path, Path]) -> None:
    maps = asyncio.run(OwnerIds(Settings(), pool).maps("daemon"))
    assert maps.root == (DAEMON.pw_uid, DAEMON.pw_gid)
    # The first block of the pool is a user's in /etc/subuid.
    assert maps.uids[1:] == maps.gids[1:] == (IdMapping(1, 1_000_000 + BLOCK, BLOCK),)


def test_the_files_of_subordinate_ids_precede_the_pool(files: tuple[Path, Path]) -> None:
    for path in files:
        path.write_text(f"{DAEMON.pw_uid}:500000:10\ndaemon:600000:20\n")
    maps = asyncio.run(OwnerIds(Settings(), pool).maps("daemon"))
    assert maps.uids == (
        IdMapping(0, DAEMON.pw_uid, 1),
        IdMapping(1, 500000, 10),
        IdMapping(11, 600000, 20),
    )


def test_a_client_with_a_certificate_has_no_id_of_the_host(files: tuple[Path, Path]) -> None:
    maps = asyncio.run(OwnerIds(Settings(), pool).maps("no such user"))
    assert maps.uids == maps.gids == (IdMapping(0, 1_000_000 + BLOCK, BLOCK),)


def test_no_two_users_have_the_same_ids(files: tuple[Path, Path]) -> None:
    settings = Settings()

    async def work() -> list[int]:
        ids = OwnerIds(settings, pool)
        found = await asyncio.gather(*(ids.maps(f"user {number % 3}") for number in range(6)))
        again = OwnerIds(settings, lambda: pool(9_000_000))  # another daemon, another pool
        found += [await again.maps(f"user {number}") for number in range(3)]
        with pytest.raises(WharfError, match="has no free block") as full:
            await ids.maps("one too many")
        assert full.value.kind is Kind.RESOURCE_EXHAUSTED
        return [maps.root[0] for maps in found]

    roots = asyncio.run(work())
    assert roots[:3] == roots[3:6] == roots[6:]
    assert len(set(roots)) == 3


def test_no_owner_has_roots_ids(files: tuple[Path, Path]) -> None:
    maps = asyncio.run(OwnerIds(Settings(), pool).maps("daemon"))
    for number in (0, os.getuid()):
        assert maps.to_container(number, number) == (65534, 65534) or number == DAEMON.pw_uid
