"""Two engines in one network namespace: each manages its own bridges, and neither removes the other's."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.networks.claims import ClaimConflict, Claims
from server.networks.netlink.rtnetlink import Netlink, link_add
from server.networks.netlink.tests.space import WAIT, ask, link_names, own_namespace
from server.networks.tests.lan import HOST, lan, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, configured, opened

pytestmark = pytest.mark.root

#: A subnet other than the first engine's.
OTHER = "172.30.251.1/24"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.networks.bridges.ownership._WAIT", 0.2)


def test_a_second_engine_on_the_bridge_is_refused(tmp_path: Path) -> None:
    """Also with other roots; and its exit leaves the first engine's bridge, rules and containers unchanged."""

    async def body(world: World, outside: str) -> None:
        _, path = await world.run("web", PortBindings=bindings("8080:80"))
        rules = world.networks.context.firewall.dump()
        with pytest.raises(WharfError, match="bridge wt0 is managed by another engine") as caught:
            async with opened(tmp_path / "second", bip=OTHER):
                pass
        assert caught.value.kind is Kind.INVALID_ARGUMENT
        assert f"(PID {os.getpid()})" in caught.value.message
        assert "--bridge-name" in caught.value.message
        assert "--bip" in caught.value.message
        assert world.networks.context.firewall.dump() == rules
        assert "wt0" in link_names()
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")

    scenario(tmp_path, body)


@pytest.mark.parametrize(
    "first", [{"bridge": "", "bridge_name": "wt1", "bip": OTHER}, {"bridge": "none", "bip": ""}], ids=["other", "none"]
)
def test_engines_on_different_bridges(tmp_path: Path, first: dict[str, str]) -> None:
    async def body(world: World, outside: str) -> None:
        _, path = await world.run("web", PortBindings=bindings("8080:80"))
        async with opened(tmp_path / "second", **first) as second:
            await second.network("net")
            await second.run("other", network="net")
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")

    scenario(tmp_path, body)


def test_a_user_defined_bridge_of_another_engine(tmp_path: Path) -> None:
    """Refused at create; a record of it (a copied data root) is not served, and nothing of it is removed."""
    options = {"com.docker.network.bridge.name": "mine0"}

    async def body(world: World, outside: str) -> None:
        root = tmp_path / "second"
        other = {"bridge_name": "wt1", "bip": OTHER}
        async with opened(root, **other) as second:
            await second.network("theirs", Options=options)
        network = await world.network("net", Options=options)
        _, path = await world.run("web", network="net", PortBindings=bindings("8080:80"))
        async with opened(root, **other) as second:
            with pytest.raises(WharfError, match="bridge mine0 of network theirs is managed by another engine"):
                await second.run("lost", network="theirs")
            await second.networks.delete("theirs")
            with pytest.raises(WharfError, match="bridge mine0 of network again is managed by another engine"):
                await second.network("again", Options=options)
        assert network.bridge in link_names()
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")
        await world.stop(next(iter(world.registry)))
        await world.networks.context.wait_teardowns()
        await world.networks.delete("net")
        await world.networks.context.wait_teardowns()
        async with opened(root, **other) as second:
            await second.network("again", Options=options)

    scenario(tmp_path, body)


def test_an_administrators_bridge_may_be_shared(tmp_path: Path) -> None:
    def prepare() -> None:
        with Netlink() as netlink:
            netlink.run(link_add("bridge", "admin0"))

    async def body(world: World, outside: str) -> None:
        async with opened(tmp_path / "second", bridge="admin0", bip="", fixed_cidr="172.30.252.0/25"):
            pass
        for settings in ({"bridge": "wt2", "bip": ""}, {"bridge_name": "admin0", "bip": OTHER}):
            with pytest.raises(WharfError, match="is managed by another engine"):
                async with opened(tmp_path / "third", **settings):
                    pass
        assert {"admin0", "wt2"} <= link_names()

    async def both(world: World, outside: str) -> None:
        async with opened(tmp_path / "owner", bridge_name="wt2", bip="172.30.253.1/24"):
            await body(world, outside)

    scenario(tmp_path, both, before=prepare, bridge="admin0", bip="", fixed_cidr="172.30.252.128/25")


def test_a_failed_start_does_not_affect_running_containers(tmp_path: Path) -> None:
    with lan(tmp_path) as outside:

        async def live() -> None:
            world = World(tmp_path, configured(tmp_path))
            await world.open()
            container, path = await world.run("web", PortBindings=bindings("8080:80"))
            await world.kill()
            failed = World(tmp_path, configured(tmp_path))
            await failed.open_only()
            await failed.close()
            with echoes((path, "web", 80)):
                assert ask(HOST, 8080, path=outside).startswith("web")
            await world.open()
            await world.stop(container)
            await world.close()

        asyncio.run(live())


def test_a_claim_ends_with_its_process() -> None:
    text = (
        "import sys, time\nfrom server.networks.claims import Claims\nclaims = Claims()\n"
        "claims.claim('bridge/b')\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with own_namespace():
        with subprocess.Popen(
            [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            claims = Claims()
            with pytest.raises(ClaimConflict, match=f"PID {holder.pid}"):
                claims.claim("bridge/b")
            assert not claims.owns("bridge/b")
            holder.kill()
            holder.wait(WAIT)
        claims.claim("bridge/b")
        claims.claim("bridge/b")
        claims.close()


def test_a_name_bound_by_another_user(caplog: pytest.LogCaptureFixture) -> None:
    """Any user can bind an abstract name: that must not keep an engine from starting."""
    text = (
        "import os, socket, sys\nos.setuid(65534)\nname = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "name.bind('\\0wharf-engine/bridge/b')\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with own_namespace():
        with subprocess.Popen(
            [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            claims = Claims()
            claims.claim("bridge/b")
            claims.close()
            assert f"process {holder.pid} of user 65534, which is no engine" in caplog.text
            holder.kill()
