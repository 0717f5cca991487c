"""The calls of drivers and IPAM drivers over a socket: bodies, order, sentences, bounds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.networks.model import Endpoint, Network, PoolConfig, RemoteEndpoint
from server.networks.remote import options, pools
from server.networks.remote.driver import RemoteDriver
from server.networks.remote.ipam import RemoteIpam
from server.networks.remote.registry import ipam_drivers, network_drivers
from server.networks.remote.tests.plugins import IpamPlugin, NetworkPlugin, mac_of
from server.plugins.discovery import Plugins

NOTHING = {"Address": "", "AddressIPv6": "", "MacAddress": ""}


def with_driver(
    tmp_path: Path, body: Callable[[RemoteDriver, NetworkPlugin], Awaitable[None]], **settings: Any
) -> None:
    with NetworkPlugin(tmp_path / "net.sock", wires=False, **settings) as plugin:

        async def run() -> None:
            await body(await network_drivers(Plugins((tmp_path,), ())).get("net"), plugin)

        asyncio.run(run())


def with_ipam(tmp_path: Path, body: Callable[[RemoteIpam, IpamPlugin], Awaitable[None]], **settings: bool) -> None:
    with IpamPlugin(tmp_path / "ipam.sock", **settings) as plugin:

        async def run() -> None:
            await body(await ipam_drivers(Plugins((tmp_path,), ())).get("ipam"), plugin)

        asyncio.run(run())


async def sentence(work: Awaitable[object]) -> str:
    with pytest.raises(WharfError) as error:
        await work
    assert error.value.kind is Kind.INTERNAL
    return error.value.message


def test_a_life_of_an_endpoint(tmp_path: Path) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        data = [{"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24"}]
        await driver.create_network("n1", {"com.docker.network.generic": {"a": "b"}}, data, [])
        given = await driver.create_endpoint("n1", "e1", {**NOTHING, "Address": "10.9.0.2/24"}, {})
        assert (given.mac, given.address4) == (mac_of({"EndpointID": "e1"}), None)
        joined = await driver.join("n1", "e1", "/run/netns/x", {"p": 1})
        assert joined.gateway4 == "10.9.0.1"
        await driver.program_external("n1", "e1", {})
        await driver.revoke_external("n1", "e1")
        await driver.leave("n1", "e1")
        await driver.delete_endpoint("n1", "e1")
        await driver.delete_network("n1")
        assert plugin.of("CreateNetwork") == [
            {
                "NetworkID": "n1",
                "Options": {"com.docker.network.generic": {"a": "b"}},
                "IPv4Data": data,
                "IPv6Data": [],
            }
        ]
        key = {"NetworkID": "n1", "EndpointID": "e1"}
        assert plugin.of("Join") == [{**key, "SandboxKey": "/run/netns/x", "Options": {"p": 1}}]
        assert plugin.of("Leave") == plugin.of("DeleteEndpoint") == [key]
        assert not plugin.networks
        assert not plugin.endpoints

    with_driver(tmp_path, body)


def test_refusals_have_the_references_words(tmp_path: Path) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        plugin.instead["CreateNetwork"] = lambda _: {"Err": "no more networks"}
        assert await sentence(driver.create_network("n1", {}, [], [])) == "remote: no more networks"
        plugin.instead["CreateNetwork"] = lambda _: b"HTTP/1.0 500 Oops\r\n\r\nbroken"
        assert await sentence(driver.create_network("n1", {}, [], [])) == "NetworkDriver.CreateNetwork: broken"
        plugin.instead["CreateNetwork"] = lambda _: b'HTTP/1.0 400 Bad\r\n\r\n{"Err": "bad word"}'
        assert await sentence(driver.create_network("n1", {}, [], [])) == "NetworkDriver.CreateNetwork: bad word"
        for garbage in (b"HTTP/1.0 200 OK\r\n\r\n[1]", b"HTTP/1.0 200 OK\r\n\r\n{", b"what?", b""):
            plugin.instead["CreateNetwork"] = lambda _, garbage=garbage: garbage  # type: ignore[misc]
            assert '"net"' in await sentence(driver.create_network("n1", {}, [], []))

    with_driver(tmp_path, body)


def test_external_connectivity_is_optional(tmp_path: Path) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        for word in ("ProgramExternalConnectivity", "RevokeExternalConnectivity"):
            plugin.instead[word] = lambda _: b"HTTP/1.0 404 Not Found\r\n\r\nno such method"
        await driver.program_external("n1", "e1", {})
        await driver.revoke_external("n1", "e1")
        plugin.instead["ProgramExternalConnectivity"] = lambda _: {"Err": "port 80 is taken"}
        assert await sentence(driver.program_external("n1", "e1", {})) == "remote: port 80 is taken"

    with_driver(tmp_path, body)


def test_a_driver_must_not_replace_what_the_engine_chose(tmp_path: Path) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        await driver.create_network("n1", {}, [], [])
        plugin.given = {"Address": "10.9.0.7/24"}
        text = await sentence(driver.create_endpoint("n1", "e1", {**NOTHING, "Address": "10.9.0.2/24"}, {}))
        assert text == (
            "driver modified interface address: endpoint interface IP present (10.9.0.2/24). "
            "Cannot be modified with (10.9.0.7/24).; rolled back"
        )
        plugin.given = {"MacAddress": "02:00:00:00:00:01"}
        mac = {**NOTHING, "MacAddress": "02:00:00:00:00:02"}
        assert "endpoint interface MAC address present" in await sentence(driver.create_endpoint("n1", "e2", mac, {}))
        for bad in ({"Address": "10.9.0.7"}, {"Address": "fd00::1/64"}, {"MacAddress": "x"}):
            plugin.given = bad
            assert (await sentence(driver.create_endpoint("n1", "e3", NOTHING, {}))).endswith("; rolled back")
        assert not plugin.endpoints

    with_driver(tmp_path, body)


def test_a_malformed_join_is_left_again(tmp_path: Path) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        await driver.create_network("n1", {}, [], [])
        await driver.create_endpoint("n1", "e1", NOTHING, {})
        plugin.joined = {"Gateway": "x"}
        assert await sentence(driver.join("n1", "e1", "/x", {})) == 'unable to parse Gateway "x"; rolled back'
        assert not plugin.joins

    with_driver(tmp_path, body)


def test_a_plugin_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(driver: RemoteDriver, plugin: NetworkPlugin) -> None:
        def hang(_: dict[str, Any]) -> bytes:
            time.sleep(1)
            return b""

        plugin.instead["DeleteNetwork"] = hang
        monkeypatch.setitem(timeouts._SECONDS, "network.plugin", 0.2)
        with pytest.raises(WharfError) as error:
            await driver.delete_network("n1")
        assert error.value.kind is Kind.DEADLINE_EXCEEDED

    with_driver(tmp_path, body)


@pytest.mark.parametrize(
    "answer", [{}, {"Scope": "swarm"}, {"Scope": "local", "ConnectivityScope": "x"}, {"Err": "not today"}]
)
def test_invalid_capabilities_are_refused(tmp_path: Path, answer: dict[str, Any]) -> None:
    with NetworkPlugin(tmp_path / "net.sock", wires=False) as plugin:
        plugin.capabilities = answer
        words = asyncio.run(sentence(network_drivers(Plugins((tmp_path,), ())).get("net")))
        assert words.startswith(("invalid capability: expecting 'local' or 'global', got", "remote: not today"))


def test_a_plugin_of_another_kind_is_no_driver(tmp_path: Path) -> None:
    with IpamPlugin(tmp_path / "ipam.sock"):
        words = asyncio.run(sentence(network_drivers(Plugins((tmp_path,), ())).get("ipam")))
        assert words == (
            "legacy plugin: Plugin does not implement the requested driver: "
            'plugin="ipam", requested implementation="NetworkDriver"'
        )


def test_a_plugin_that_was_used_stays_known(tmp_path: Path) -> None:
    async def body() -> None:
        drivers = network_drivers(Plugins((tmp_path,), ()))
        with NetworkPlugin(tmp_path / "net.sock", wires=False):
            first = await drivers.get("net")
        with pytest.raises(WharfError) as error:
            await drivers.get("net")
        assert (error.value.kind, error.value.message) == (Kind.NOT_FOUND, 'plugin "net" not found')
        assert await drivers.get_used("net") is first
        with NetworkPlugin(tmp_path / "net.sock", wires=False) as again:
            # A new socket: it is activated again.
            assert await drivers.get("net") is not first
            assert again.calls[0][0] == "Plugin.Activate"

    asyncio.run(body())


def test_the_gateway_check_is_asked_only_of_who_offers_it(tmp_path: Path) -> None:
    with NetworkPlugin(tmp_path / "net.sock", wires=False) as plugin:

        async def body() -> None:
            drivers = network_drivers(Plugins((tmp_path,), ()))
            assert await (await drivers.get("net")).skips_gateway({}) == (False, False)
            assert not plugin.of("GwAllocCheck")

        asyncio.run(body())
        plugin.capabilities["GwAllocChecker"] = True

        async def again() -> None:
            drivers = network_drivers(Plugins((tmp_path,), ()))
            assert await (await drivers.get("net")).skips_gateway({"o": 1}) == (True, False)
            assert plugin.of("GwAllocCheck") == [{"Options": {"o": 1}}]

        asyncio.run(again())


# IPAM


def network(**fields: Any) -> Network:
    return Network("n1", "net", "bridge", 1, ipam_driver="ipam", **fields)


def test_pools_gateways_and_auxiliary_addresses(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        found = network(ipam_options={"size": "small"}, enable_ipv6=True)
        asked = PoolConfig("10.50.0.0/24", "10.50.0.128/25", "", {"printer": "10.50.0.9"}, configured=True)
        await pools.request_pools(ipam, found, [asked], (False, False), [])
        assert [(item.subnet, item.gateway, item.aux) for item in found.ipam or ()] == [
            ("10.50.0.0/24", "10.50.0.1", {"printer": "10.50.0.9"}),
            ("fd77:0:0:0::/64".replace(":0:0:0", ""), "fd77::1", {}),
        ]
        first, second = plugin.of("RequestPool")
        assert first == {
            "AddressSpace": "here",
            "Pool": "10.50.0.0/24",
            "SubPool": "10.50.0.128/25",
            "Options": {"size": "small"},
            "V6": False,
        }
        assert (second["Pool"], second["V6"]) == ("", True)
        gateway = {"RequestAddressType": "com.docker.network.gateway"}
        assert plugin.of("RequestAddress")[0] == {"PoolID": "pool of 10.50.0.0/24", "Address": "", "Options": gateway}
        assert options.pool_data(found, 4) == [
            {
                "AddressSpace": "here",
                "Pool": "10.50.0.0/24",
                "Gateway": "10.50.0.1/24",
                "AuxAddresses": {"printer": "10.50.0.9/24"},
            }
        ]
        await pools.release_pools(ipam, found)
        assert not plugin.pools
        assert not found.ipam

    with_ipam(tmp_path, body)


def test_the_plugin_may_choose_the_gateway_with_the_pool(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        plugin.data = {"com.docker.network.gateway": "10.77.0.254/25"}
        found = network()
        await pools.request_pools(ipam, found, [], (False, False), [])
        assert found.ipam is not None
        assert (found.ipam[0].gateway, found.ipam[0].gateway_bits) == ("10.77.0.254", 25)
        assert not plugin.of("RequestAddress")
        plugin.data = {"com.docker.network.gateway": "x"}
        text = await sentence(pools.request_pools(ipam, network(), [], (False, False), []))
        assert text.startswith("failed to parse gateway address (x) returned by ipam driver:")

    with_ipam(tmp_path, body)


def test_subnets_that_overlap_with_routes_are_given_back(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        routes = [ip_network("10.77.0.0/23"), ip_network("fd00::/8")]
        found = network()
        await pools.request_pools(ipam, found, [], (True, True), routes)
        assert [item.subnet for item in found.ipam or ()] == ["10.77.2.0/24"]
        assert list(plugin.pools.values()) == ["10.77.2.0/24"]
        assert found.ipam is not None
        assert not found.ipam[0].gateway
        # A plugin that always returns the same one is not asked for ever.
        plugin.instead["RequestPool"] = lambda _: {"PoolID": "p", "Pool": "10.77.0.0/24"}
        plugin.instead["ReleasePool"] = lambda _: {}
        text = await sentence(pools.request_pools(ipam, network(), [], (True, True), routes))
        assert text == 'all subnets that IPAM plugin "ipam" chooses overlap with routes of the host'

    with_ipam(tmp_path, body)


def test_a_failed_request_leaves_what_it_had_to_release(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        async with AsyncExitStack() as undo:
            found = network(enable_ipv6=True)
            undo.push_async_callback(pools.release_pools, ipam, found)
            plugin.instead["RequestAddress"] = lambda _: {"Error": "none left"}
            text = await sentence(pools.request_pools(ipam, found, [], (False, False), []))
            assert text == "failed to allocate gateway (): remote: none left"
            assert plugin.pools
        assert not plugin.pools
        for answer, words in (
            ({"PoolID": "p", "Pool": "10.0.0.0"}, "no valid prefix"),
            ({"PoolID": "p", "Pool": "fd00::/64"}, "is no IPv4 subnet"),
            ({"PoolID": 5, "Pool": "10.0.0.0/8"}, "PoolID is not a string"),
            ({"Error": "full"}, "remote: full"),
        ):
            plugin.instead["RequestPool"] = lambda _, answer=answer: answer  # type: ignore[misc]
            assert words in await sentence(pools.request_pools(ipam, network(), [], (False, False), []))

    with_ipam(tmp_path, body)


def test_addresses_of_endpoints(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        found = network()
        await pools.request_pools(ipam, found, [], (False, False), [])
        endpoint = Endpoint("e1", "n1", "c1", "box", mac="02:00:00:00:00:09", remote=RemoteEndpoint())
        await pools.request_addresses(ipam, found, endpoint, ipv6=True)
        assert (endpoint.address4, endpoint.address6) == ("10.77.0.2/24", "")
        named = {"com.docker.network.endpoint.name": "box"}
        assert plugin.of("RequestAddress")[-1]["Options"] == named | {
            "com.docker.network.endpoint.macaddress": "02:00:00:00:00:09"
        }
        await pools.release_addresses(ipam, endpoint)
        assert plugin.of("ReleaseAddress") == [{"PoolID": "pool of 10.77.0.0/24", "Address": "10.77.0.2"}]
        plugin.instead["RequestAddress"] = lambda _: {}
        assert await sentence(pools.request_addresses(ipam, found, endpoint, ipv6=True)) == "no address returned"

    with_ipam(tmp_path, body, RequiresMACAddress=True)


def test_replay_repeats_pools_gateways_and_addresses(tmp_path: Path) -> None:
    async def body(ipam: RemoteIpam, plugin: IpamPlugin) -> None:
        assert ipam.needs_replay
        config = PoolConfig("10.77.0.0/24", gateway="10.77.0.1", aux={"x": "10.77.0.5"}, pool_id="old")
        found = network(ipam=[config], address_space="here")
        endpoint = Endpoint("e1", "n1", "c1", "box", address4="10.77.0.8/24", remote=RemoteEndpoint(pool4="old"))
        await pools.replay(ipam, found, [endpoint])
        assert plugin.taken == {"pool of 10.77.0.0/24": {"10.77.0.1", "10.77.0.5", "10.77.0.8"}}
        assert config.pool_id == "pool of 10.77.0.0/24"
        assert endpoint.remote is not None
        assert endpoint.remote == replace(RemoteEndpoint(), pool4="pool of 10.77.0.0/24")

    with_ipam(tmp_path, body, RequiresRequestReplay=True)


def test_capabilities_of_an_ipam_plugin_are_optional(tmp_path: Path) -> None:
    with IpamPlugin(tmp_path / "ipam.sock") as plugin:
        plugin.capabilities = None
        ipam = asyncio.run(ipam_drivers(Plugins((tmp_path,), ())).get("ipam"))
        assert not ipam.needs_mac
        assert not ipam.needs_replay
