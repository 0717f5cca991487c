"""Pruning removes leaves first, least recently used first, down to a size; links of definitions live with records."""

import asyncio
from pathlib import Path

import pytest

from server.builder.cache.records import REGULAR, Cache, Record, choose


def record(id: str, used: int, *parents: str, size: int = 10) -> Record:
    return Record(id, id, id, None, "", REGULAR, 0, used, 1, size, id, parents)


TREE = (record("a", 5), record("b", 3, "a"), record("c", 4, "a"), record("d", 1), record("e", 2, "c", size=30))


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [(0, "d e b c a"), (70, ""), (69, "d"), (60, "d"), (59, "d e"), (30, "d e"), (29, "d e b"), (1, "d e b c a")],
)
def test_down_to_a_size(keep: int, chosen: str) -> None:
    found = choose(TREE, free=lambda _: True, total=70, keep_bytes=keep)
    assert " ".join(item.id for item in found) == chosen


def test_records_in_use_keep_their_parents() -> None:
    assert [item.id for item in choose(TREE, free=lambda item: item.id != "c", total=70)] == ["d", "e", "b"]
    assert [item.id for item in choose(TREE, free=lambda item: item.id in "ac", total=70)] == []
    # an unknown parent is ignored
    assert [item.id for item in choose((record("x", 1, "gone"),), free=lambda _: True, total=10)] == ["x"]


def made(key: str, id: str) -> Record:
    return Record(id, key, f"chain of {id}", None, "", REGULAR, 1, 1, 1, 0, id)


def test_links_live_as_long_as_their_records(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.db")

    async def ids(cache: Cache, definition: str, since_ns: int = 0) -> list[str]:
        return [record.id for record in await cache.find_by_definition(definition, since_ns=since_ns)]

    async def first() -> int:
        cache = Cache(path)
        for key, id in (("k1", "a"), ("k2", "b"), ("k2", "c"), ("plain", "d")):
            await cache.add(made(key, id))
        await cache.link("def", "k1", since_ns=0)
        await cache.link("def", "k2", since_ns=0)
        await cache.link("plain", "plain", since_ns=0)
        await cache.link("def", "never", since_ns=0)
        assert await ids(cache, "def") == ["c", "b", "a"]
        assert await ids(cache, "plain") == ["d"]
        newest = await cache.newest_ns("def")
        assert await ids(cache, "def", newest + 1) == []
        # A newer build of the source stage replaces the link.
        await cache.link("def", "k1", since_ns=newest + 1)
        assert await ids(cache, "def") == ["a", "c", "b"]
        await cache.remove(["b"])
        assert await ids(cache, "def") == ["a", "c"]
        await cache.remove(["c"])
        assert await ids(cache, "def") == ["a"]
        again = await cache.newest_ns("def")
        await cache.close()
        return again

    async def second(newest: int) -> None:
        cache = Cache(path)
        assert await ids(cache, "def") == ["a"]
        assert await cache.newest_ns("def") == newest
        assert await cache.newest_ns("none") == 0
        await cache.count_use(["a"], now_ns=7)
        await cache.close()
        cache = Cache(path)
        assert [(item.id, item.used_ns) for item in await cache.find("k1")] == [("a", 7)]
        await cache.close()

    asyncio.run(second(asyncio.run(first())))
