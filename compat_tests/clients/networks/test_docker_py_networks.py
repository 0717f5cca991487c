"""docker-py's ``networking_config`` and network options, compared with dockerd."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import docker
import pytest
from docker import errors
from docker.types import IPAMConfig, IPAMPool

from compat_tests.support.engines import Dockerd, Engine

# docker-py leaves its stream sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# Options of a bridge: dockerd's, unknown ones, and invalid values.
BRIDGE = "com.docker.network.bridge."
BRIDGE_OPTIONS: list[dict[str, str]] = [
    {"nobody.knows": "1", f"{BRIDGE}enable_icc": "false", "": "x"},
    {f"{BRIDGE}enable_icc": "maybe"},
    {f"{BRIDGE}inhibit_ipv4": "zzz"},
    {f"{BRIDGE}host_binding_ipv4": "nope"},
    {f"{BRIDGE}host_ipv4": "1.2.3"},
    {"com.docker.network.driver.mtu": "abc"},
    {"com.docker.network.driver.mtu": "-1"},
    {"com.docker.network.internal": "true", "com.docker.network.windowsshim.x": "y", "icc": "maybe"},
]
# networking_config of containers on the networks "a" (10.214.1.0/24, the network mode) and "b".
ENDPOINTS: list[dict[str, dict[str, Any]]] = [
    {"a": {"driver_opt": {"nobody.knows": "b", "com.docker.network.endpoint.ifname": "foo0"}}},
    {"a": {"aliases": ["x", "y"], "ipv4_address": "10.214.1.77", "mac_address": "02:42:0a:d6:01:4d"}},
    {"a": {"driver_opt": {"odd": ""}, "link_local_ips": ["169.254.3.4"]}},
    {"a": {"link_local_ips": ["x"]}},
    {"a": {"ipv4_address": "1.2.3"}},
    {"a": {"ipv4_address": "10.99.1.3"}},
    {"a": {"ipv6_address": "fd00::5"}},
    {"a": {"mac_address": "zz"}},
    {"a": {"driver_opt": {"one": "1"}}, "b": {"driver_opt": {"two": "2"}}},
    {"bridge": {"ipv4_address": "10.9.9.9"}},
    {"bridge": {"aliases": ["x"]}},
]


def outcome(call: Callable[[], Any]) -> Any:
    """Return a call's result, or the status and sentence of its error."""
    try:
        return call()
    except errors.APIError as error:
        return error.status_code, error.explanation


class Networking:
    """Uses ``networking_config`` and driver options through docker-py; random values are removed."""

    def __init__(self, engine: Engine, name: str) -> None:
        # The reference's newest version: later versions have other fields.
        self._client: Any = docker.DockerClient(base_url=engine.host, version="1.45", timeout=90)
        self._name = name
        self._names = {word: f"{name}{word}" for word in "ab"}

    def _network(self, name: str, subnet: str, **options: Any) -> Any:
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        return self._client.networks.create(name, driver="bridge", ipam=ipam, **options)

    def _made(self, options: dict[str, str]) -> Any:
        network = self._network(f"{self._name}o", "10.214.3.0/24", options=options)
        network.reload()
        network.remove()
        return network.attrs["Options"]

    def _shown(self, container: Any) -> Any:
        container.reload()
        found = {}
        for network, shown in container.attrs["NetworkSettings"]["Networks"].items():
            shown.pop("GwPriority", None)  # dockerd 28 shows it at every version
            shown["EndpointID"], shown["NetworkID"] = bool(shown["EndpointID"]), bool(shown["NetworkID"])
            shown["DNSNames"] = [name for name in shown["DNSNames"] or () if not container.id.startswith(name)]
            if not (shown["IPAMConfig"] or {}).get("IPv4Address"):
                shown["IPAddress"], shown["MacAddress"] = bool(shown["IPAddress"]), bool(shown["MacAddress"])
            found[network] = shown
        return found

    def _started(self, points: dict[str, dict[str, Any]]) -> Any:
        low = self._client.api
        config = {self._names.get(key, key): low.create_endpoint_config(**point) for key, point in points.items()}
        mode = "bridge" if "bridge" in points else self._names["a"]
        created = low.create_container(
            "busybox",
            "sleep 1000",
            name=self._name,
            host_config=low.create_host_config(network_mode=mode),
            networking_config=low.create_networking_config(config),
        )
        container = self._client.containers.get(created["Id"])
        try:
            return [self._shown(container), outcome(container.start), self._shown(container)]
        finally:
            container.remove(force=True)

    def _connected(self, network: Any) -> Any:
        container = self._client.containers.create("busybox", "sleep 1000", name=self._name, network=self._names["a"])
        try:
            container.start()
            return [
                outcome(lambda: network.connect(container, driver_opt={"p": "q"}, aliases=["z"])),
                self._shown(container),
                outcome(lambda: network.connect(container)),
                network.disconnect(container),
                self._shown(container),
                str(outcome(lambda: network.disconnect(container))).replace(container.id, "id"),
            ]
        finally:
            container.remove(force=True)

    def all(self) -> list[Any]:
        found = [outcome(partial(self._made, options)) for options in BRIDGE_OPTIONS]
        networks = []
        try:
            for number, name in enumerate(self._names.values(), 1):
                networks.append(self._network(name, f"10.214.{number}.0/24"))
            found += [outcome(partial(self._started, points)) for points in ENDPOINTS]
            found.append(self._connected(networks[1]))
        finally:
            for network in networks:
                network.remove()
            self._client.close()
        return found


def test_networking_config_equals_dockerds(engine: Engine, oracle: Dockerd) -> None:
    name = f"py{uuid.uuid4().hex[:10]}"
    ours, theirs = Networking(engine, name).all(), Networking(oracle, name).all()
    cases = [*BRIDGE_OPTIONS, *ENDPOINTS, "connect"]
    for case, mine, other in zip(cases, ours, theirs, strict=True):
        assert _without_sentence(mine) == _without_sentence(other), case
    gc.collect()


def _without_sentence(answer: object) -> object:
    """The sentences about endpoints are those of dockerd 29, and the oracle is 26.1: only who refuses is compared."""
    if not isinstance(answer, tuple):
        return answer
    return tuple(each.partition("invalid endpoint settings:")[0] if isinstance(each, str) else each for each in answer)
