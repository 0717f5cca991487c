"""The move of a swarm's state from SQLite into etcd."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from server.swarm.etcd.move import copy, move
from server.swarm.etcd.tests.cluster import Cluster, free_port
from server.swarm.model import codec
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import Compacted, Condition, ConditionFailed, Entry, Write
from server.swarm.store.sqlite import SqliteStore
from server.swarm.store.tests import etcd_member

pytestmark = pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")

_SECONDS = 60
_ENTRIES = 1500


async def _filled(path: Path) -> SqliteStore:
    store = SqliteStore(path / "swarm.db")
    await store.open()
    for first in range(0, _ENTRIES, 100):
        entries = [Write(f"{codec.ROOT}task/{n:05}", bytes([n % 256]) * 1000) for n in range(first, first + 100)]
        await store.commit([], entries)
    for n in range(3):
        await store.commit([], [Write(f"{codec.ROOT}config/{n}", b"x" * (1 << 20))])
    lease = await store.grant(600)
    await store.commit([], [Write(f"{codec.ROOT}session/n1", b"{}", lease)])
    return store


def _plain(entries: Sequence[Entry]) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in entries if "/session/" not in entry.key}


def test_everything_is_moved_and_revisions_go_on(tmp_path: Path) -> None:
    async def run() -> None:
        source = await _filled(tmp_path)
        entries, revision = await source.range(codec.ROOT)
        cluster = Cluster(tmp_path)
        options = cluster.options("one")
        # An attempt that has ended in between.
        (options.data / "member" / "wal").mkdir(parents=True)
        child = await move(source, options, cluster.pems("one"))
        store = EtcdStore([child.endpoint])
        found, reached = await store.range(codec.ROOT)
        assert {entry.key: entry.value for entry in found} == _plain(entries)
        assert revision < min(entry.revision for entry in found) < max(entry.revision for entry in found) == reached
        # What was read in the former store is never mistaken for what is here.
        key = found[0].key
        former = next(entry for entry in entries if entry.key == key)
        for old in (former.revision, revision):
            with pytest.raises(ConditionFailed):
                await store.commit([Condition(key, old)], [Write(key, b"lost")])
            with pytest.raises(ConditionFailed):
                await store.commit([Condition("new", old)], [Write("new", b"lost")])
        with pytest.raises(Compacted):
            await anext(store.watch(codec.ROOT, former.revision))
        watch = store.watch(codec.ROOT, reached)
        changed = await store.commit([Condition(key, found[0].revision)], [Write(key, b"changed")])
        while not (commit := await anext(watch)).changes:
            continue
        assert (commit.revision, [change.key for change in commit.changes]) == (changed, [key])
        await store.close()
        await child.close()
        await source.close()

    async def limited() -> None:
        async with asyncio.timeout(_SECONDS):
            await run()

    asyncio.run(limited())


def test_what_is_not_read_back_is_noticed(tmp_path: Path) -> None:
    class Forgetful(EtcdStore):
        async def range(self, prefix: str) -> tuple[Sequence[Entry], int]:
            entries, revision = await super().range(prefix)
            return entries[1:], revision

    async def run(address: str) -> None:
        source = await _filled(tmp_path)
        target = Forgetful([address])
        with pytest.raises(WharfError, match="could not be moved"):
            await copy(source, target)
        await target.close()
        await source.close()

    with etcd_member.member(tmp_path / "etcd") as address:
        asyncio.run(run(address))


_PROGRAM = """
import asyncio, sys
from pathlib import Path
from server.swarm.etcd.move import move
from server.swarm.etcd.program import MemberOptions, Pems
from server.swarm.store.sqlite import SqliteStore
async def main(path, port):
    source = SqliteStore(path / "swarm.db")
    await source.open()
    address = f"127.0.0.1:{port}"
    options = MemberOptions(
        data=path / "one" / "etcd", runtime=path / "one" / "run", name="one", listen=address, advertise=address
    )
    pems = Pems(*((path / name).read_text() for name in ("certificate", "key", "roots")))
    print("begins", flush=True)
    child = await move(source, options, pems)
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_a_move_that_is_killed_begins_anew(tmp_path: Path) -> None:
    async def prepare() -> dict[str, bytes]:
        source = await _filled(tmp_path)
        entries, _ = await source.range(codec.ROOT)
        await source.close()
        return _plain(entries)

    wanted = asyncio.run(prepare())
    cluster = Cluster(tmp_path)
    pems = cluster.pems("one")
    for name in ("certificate", "key", "roots"):
        (tmp_path / name).write_text(getattr(pems, name))
    port = str(free_port())
    # While etcd starts, while it elects, while entries are written; and at the end.
    for seconds in (0.1, 0.3, 0.5, None):
        command = [sys.executable, "-c", _PROGRAM, str(tmp_path), port]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if seconds is None:
                assert int(process.stdout.readline())
                found = asyncio.run(_read(f"unix:{tmp_path}/one/run/client.sock:0"))
                assert found == wanted
            else:
                time.sleep(seconds)
            process.kill()


async def _read(endpoint: str) -> dict[str, bytes]:
    store = EtcdStore([endpoint])
    entries, _ = await store.range(codec.ROOT)
    await store.close()
    return _plain(entries)
