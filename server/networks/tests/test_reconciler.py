"""What another program removes from a running engine's networks is restored: devices, ports, addresses, rules."""

import asyncio
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from server.networks.model import Network
from server.networks.netlink.rtnetlink import Netlink, link_add
from server.networks.netlink.tests.space import WAIT, ask, link_names, until
from server.networks.tests.lan import HOST, HOST6, nft, resolve, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World

pytestmark = pytest.mark.root

TABLE = "inet wharf-wt0"


def ip(text: str) -> None:
    """Runs a batch of ip(8) in this thread's namespace."""
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, timeout=WAIT, check=True)


def veth(network: Network) -> str:
    return next(iter(network.endpoints.values())).veth


def take_all(network: Network) -> None:
    nft("flush ruleset\n")
    ip(f"link del {network.bridge}\n")


HARM: dict[str, Callable[[Network], object]] = {
    "deleted": lambda network: ip(f"link del {network.bridge}\n"),
    "replaced": lambda network: ip(f"link del {network.bridge}\nlink add {network.bridge} type bridge\n"),
    "down": lambda network: ip(f"link set {network.bridge} down\n"),
    "renamed": lambda network: ip(f"link set {network.bridge} down\nlink set {network.bridge} name odd0\n"),
    "without addresses": lambda network: ip(f"address flush dev {network.bridge}\n"),
    "port taken out": lambda network: ip(f"link set {veth(network)} nomaster\n"),
    "port down": lambda network: ip(f"link set {veth(network)} down\n"),
    "ruleset flushed": lambda _: nft("flush ruleset\n"),
    "rule deleted": lambda _: nft(f"flush chain {TABLE} publish\n"),
    "element deleted": lambda _: nft(f"delete element {TABLE} ports4_any {{ tcp . 8080 }}\n"),
    "set flushed": lambda network: nft(f"flush map {TABLE} ports4_any\nflush set {TABLE} bridges\n"),
    "all at once": lambda network: take_all(network),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["bridge", "net"])
def test_damage_is_restored(tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """Published ports, the name service, IPv6 and outgoing traffic work again, and one log line tells so."""
    caplog.set_level(logging.WARNING)

    async def body(world: World, outside: str) -> None:
        if name == "net":
            network = await world.network("net", EnableIPv6=True)
        else:
            network = world.networks.get("bridge")
        web, path = await world.run("web", network=name, PortBindings=bindings("8080:80"))
        _, client = await world.run("client", network=name)
        address = world.endpoint(web, name)

        def works() -> bool:
            found = ask(HOST, 8080, path=outside, seconds=1).startswith("web")
            found = found and ask(address["IPAddress"], 80, path=client, seconds=1).startswith("web")
            return found and bool(ask("192.0.2.2", 80, path=client, seconds=1))

        with echoes((path, "web", 80), (outside, "out", 80)):
            assert await asyncio.to_thread(until, works)
            await asyncio.sleep(0.5)  # the notifications of the start's own changes are handled
            caplog.clear()
            HARM[harm](network)
            # Without its rules the userland proxy still serves a published port.
            assert await asyncio.to_thread(until, lambda: len(caplog.records) >= 1 + (harm == "all at once"))
            assert await asyncio.to_thread(until, works)
            assert "odd0" not in link_names()
        if name == "net":
            with echoes((path, "web", 80), v6=True):
                assert ask(address["GlobalIPv6Address"], 80, path=client).startswith("web")
                assert ask(address["GlobalIPv6Address"], 80).startswith("web")
                assert await asyncio.to_thread(until, lambda: ask(HOST6, 8080, path=outside).startswith("web"))
            assert resolve(client, "web") == (0, [address["IPAddress"]])
        _, later = await world.run("later", network=name)
        with echoes((path, "web", 80)):
            assert ask(address["IPAddress"], 80, path=later).startswith("web")
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(said) == 1 + (harm == "all at once"), said
        assert all("restored" in line for line in said), said

    scenario(tmp_path, body)


def test_a_restoration_at_start_is_not_repeated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World, outside: str) -> None:
        await world.run("web", PortBindings=bindings("8080:80"))
        await asyncio.sleep(0.5)
        caplog.clear()
        nft(f"flush map {TABLE} ports4_any\nflush chain {TABLE} forward\n")
        await world.run("next")  # before the notification is handled
        await asyncio.sleep(1)
        assert len([record for record in caplog.records if "restored" in record.getMessage()]) == 1

    scenario(tmp_path, body)


def test_an_internal_network_stays_internal(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        network = await world.network("net", Internal=True)
        web, path = await world.run("web", network="net")
        _, client = await world.run("client", network="net")
        address = world.address(web, "net")
        ip(f"link del {network.bridge}\n")
        with echoes((path, "web", 80), (outside, "out", 80)):
            assert await asyncio.to_thread(until, lambda: ask(address, 80, path=client, seconds=1).startswith("web"))
            assert not ask("192.0.2.2", 80, path=client, seconds=0.3)

    scenario(tmp_path, body)


def test_a_start_right_after_the_bridge_was_deleted(tmp_path: Path) -> None:
    """It does not wait for the notification; an unusable bridge is named in the error."""

    async def body(world: World, outside: str) -> None:
        network = await world.network("net")
        for number in range(5):
            ip(f"link del {network.bridge}\n")
            one, path = await world.run(f"one-{number}", network="net")
            _, client = await world.run(f"other-{number}", network="net")
            with echoes((path, "one", 80)):
                address = world.address(one, "net")
                assert await asyncio.to_thread(until, lambda: ask(address, 80, path=client, seconds=1) != "")  # noqa: B023
        ip(f"link del {network.bridge}\nlink add {network.bridge} type veth peer name odd0\n")
        with pytest.raises(WharfError, match="was changed by another program and cannot be restored") as caught:
            await world.run("lost", network="net")
        assert network.bridge in caught.value.message
        ip("link del odd0\n")
        assert await asyncio.to_thread(until, lambda: _is_bridge(network.bridge))
        await world.start(world.registry.of("").get("lost"))

    scenario(tmp_path, body)


def _is_bridge(name: str) -> bool:
    with Netlink() as netlink:
        link = netlink.link(name)
        return link is not None and link.kind == "bridge"


def test_requested_removals_are_not_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The engine's own changes are not taken for another program's."""
    caplog.set_level(logging.WARNING)

    async def body(world: World, outside: str) -> None:
        for _ in range(3):
            network = await world.network("net", EnableIPv6=True)
            containers = [
                (await world.run(f"c{number}", network="net", PortBindings=bindings(f"{8080 + number}:80")))[0]
                for number in range(3)
            ]
            await world.networks.connect("bridge", "c0", None)
            await world.networks.disconnect("net", "c1")
            await asyncio.sleep(0.3)
            for container in containers:
                await world.stop(container)
                await world.remove(container)
            await world.networks.delete("net")
            await world.networks.context.wait_teardowns()
            await asyncio.sleep(0.3)
            assert network.bridge not in link_names()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    scenario(tmp_path, body)


def test_a_port_moved_to_another_bridge_stays(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.run("one")
        network = world.networks.get("bridge")
        with Netlink() as host:
            host.run(link_add("bridge", "admin0"))
            ip(f"link set {veth(network)} master admin0\n")
            await world.run("another")
            await asyncio.sleep(0.6)
            link, bridge = host.link(veth(network)), host.link("admin0")
            assert link is not None
            assert bridge is not None
            assert link.master == bridge.index

    scenario(tmp_path, body)


def test_repeated_damage_is_restored_with_growing_pauses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World, outside: str) -> None:
        network = await world.network("net")
        for _ in range(60):
            if network.bridge in link_names():
                ip(f"link del {network.bridge}\n")
            await asyncio.sleep(0.05)
        assert len([record for record in caplog.records if "restored" in record.getMessage()]) <= 4

    scenario(tmp_path, body)
