"""The ids of owners' containers."""

import asyncio
import pwd
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.ids import OVERFLOW, IdMapping
from server.containers.host import owners
from server.containers.host.owners import BLOCK, OwnerIds, UserIds, groups_of

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
    maps = asyncio.run(OwnerIds(Settings(), pool).of("daemon")).maps((0, 0))
    assert maps.root == (DAEMON.pw_uid, DAEMON.pw_gid)
    # The first block of the pool is a user's in /etc/subuid.
    assert maps.uids[1:] == maps.gids[1:] == (IdMapping(1, 1_000_000 + BLOCK, BLOCK),)


def test_the_files_of_subordinate_ids_precede_the_pool(files: tuple[Path, Path]) -> None:
    for path in files:
        path.write_text(f"{DAEMON.pw_uid}:500000:10\ndaemon:600000:20\n")
    maps = asyncio.run(OwnerIds(Settings(), pool).of("daemon")).maps((0, 0))
    assert maps.uids == (
        IdMapping(0, DAEMON.pw_uid, 1),
        IdMapping(1, 500000, 10),
        IdMapping(11, 600000, 20),
    )


def test_a_client_with_a_certificate_has_no_id_of_the_host(files: tuple[Path, Path]) -> None:
    maps = asyncio.run(OwnerIds(Settings(), pool).of("no such user")).maps((0, 0))
    assert maps.uids == maps.gids == (IdMapping(0, 1_000_000 + BLOCK, BLOCK),)


def test_no_two_users_have_the_same_ids(files: tuple[Path, Path]) -> None:
    settings = Settings()

    async def work() -> list[int]:
        ids = OwnerIds(settings, pool)
        found = await asyncio.gather(*(ids.of(f"user {number % 3}") for number in range(6)))
        again = OwnerIds(settings, lambda: pool(9_000_000))  # another daemon, another pool
        found += [await again.of(f"user {number}") for number in range(3)]
        with pytest.raises(WharfError, match="has no free block") as full:
            await ids.of("one too many")
        assert full.value.kind is Kind.RESOURCE_EXHAUSTED
        return [user.maps((0, 0)).root[0] for user in found]

    roots = asyncio.run(work())
    assert roots[:3] == roots[3:6] == roots[6:]
    assert len(set(roots)) == 3


def test_a_container_that_runs_as_the_users_own_id() -> None:
    user = UserIds((1000, 100), ((500_000, 600), (700_000, 70_000)), ((500_000, 65_536),))
    assert user.inside("1000:100") == (1000, 100)
    assert user.inside("1000") == user.inside("1000:5") == (1000, 0)
    for other in ("", "0", "root", "1001:100", "alice"):
        assert user.inside(other) == (0, 0)
    maps = user.maps((1000, 100))
    assert maps.uids == (
        IdMapping(0, 500_000, 600),
        IdMapping(600, 700_000, 400),
        IdMapping(1000, 1000, 1),
        IdMapping(1001, 700_400, 69_600),
    )
    assert maps.gids == (
        IdMapping(0, 500_000, 100),
        IdMapping(100, 100, 1),
        IdMapping(101, 500_100, 65_436),
    )
    # An id that the subordinate ids don't reach.
    assert user.maps((1_000_000, 0)).uids[-1] == IdMapping(1_000_000, 1000, 1)
    assert UserIds(None, ((5, 6),), ((7, 8),)).inside("1000") == (0, 0)


def test_supplementary_groups_keep_their_ids() -> None:
    user = UserIds((1000, 100), ((500_000, 65_536),), ((500_000, 65_536),))
    groups = groups_of((1000, 100, 100, 5000, 0, 27, 70_000, 5000, 500_009))
    assert groups == (27, 5000, 70_000, 500_009)
    maps = user.maps((0, 0), groups)
    assert maps.uids == user.maps((0, 0)).uids
    assert maps.gids == (
        IdMapping(0, 100, 1),
        IdMapping(1, 500_000, 26),
        IdMapping(27, 27, 1),
        IdMapping(28, 500_027, 4972),
        IdMapping(5000, 5000, 1),
        IdMapping(5001, 505_000, 60_536),
        # 500009 is a subordinate id, which is mapped already.
        IdMapping(70_000, 70_000, 1),
    )
    assert maps.to_container(0, 500_009)[1] == user.maps((0, 0)).to_container(0, 500_009)[1] == 10
    # The ends of a range.
    assert user.maps((0, 0), (1, 65_536)).gids == (
        IdMapping(0, 100, 1),
        IdMapping(1, 1, 1),
        IdMapping(2, 500_001, 65_534),
        IdMapping(65_536, 65_536, 1),
    )
    assert groups_of(()) == groups_of((1000, 100)) == ()
    assert len(groups_of((1000, 100, *range(200, 300)))) == owners.MOST_GROUPS


def test_the_hosts_root_is_in_no_mapping(files: tuple[Path, Path]) -> None:
    ids = asyncio.run(OwnerIds(Settings(), pool).of("daemon"))
    for inside in ((0, 0), (DAEMON.pw_uid, DAEMON.pw_gid)):
        assert ids.maps(inside).to_container(0, 0) == (OVERFLOW, OVERFLOW)
