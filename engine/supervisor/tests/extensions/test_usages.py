"""The usages of many snapshots in one request."""

import os
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.supervisor.tests.extensions.ways import Way
from engine.supervisor.tests.snapshotters import mounted

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_many_snapshots(way: Way) -> None:
    async def body(engine: Engine) -> None:
        shots = engine.snapshots

        def write(root: Path, size: int = 0) -> None:
            (root / "file").write_bytes(os.urandom(size))

        await mounted(await shots.prepare("k1", ""), lambda root: write(root, 1 << 20))
        await shots.commit("base", "k1")
        keys = [f"active{number}" for number in range(300)]
        for key in keys:
            mounts = await shots.prepare(key, "base")
        await mounted(mounts, lambda root: write(root, 2 << 20))
        found = await shots.usages(["base", "absent", *keys, *keys])
        assert found.keys() == {"base", *keys}
        assert 1 << 20 <= found["base"].size < 3 << 19
        assert 2 << 20 <= found[keys[-1]].size < 5 << 19
        assert found[keys[0]].size == found[keys[1]].size < 1 << 19
        assert found == await shots.usages(found) == {key: await shots.usage(key) for key in found}
        await mounted(mounts, lambda root: write(root, 4 << 20))
        assert (await shots.usages(keys))[keys[-1]].size >= 4 << 20
        assert await shots.usages(()) == {}

    way.run(body)
