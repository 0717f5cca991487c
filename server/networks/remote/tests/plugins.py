"""A network driver and an IPAM driver in threads of the test, which can be made to misbehave.

The threads are in the network namespace of the test: the driver makes veth pairs on a bridge there.
"""

import hashlib
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_delete
from server.plugins.tests.plugins import Answer, Plugin

BRIDGE = "plug0"


def mac_of(body: dict[str, Any]) -> str:
    """The MAC address that the driver chooses for an endpoint."""
    digest = hashlib.sha256(body["EndpointID"].encode()).digest()
    return ":".join(f"{octet:02x}" for octet in b"\x02" + digest[:5])


class NetworkPlugin(Plugin):
    """A driver that attaches containers to the bridge ``plug0``, which has the network's gateway.

    ``joined`` is merged into the answers to ``Join``, ``given`` into the interface that ``CreateEndpoint`` answers.
    Without ``wires``, no device is made.
    """

    def __init__(self, path: Path, *, scope: str = "local", wires: bool = True, gateway: bool = True) -> None:
        self.networks: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.external: dict[str, dict[str, Any]] = {}
        self.joins: set[str] = set()
        self.capabilities: dict[str, Any] = {"Scope": scope}
        self.joined: dict[str, Any] = {}
        self.given: dict[str, str] = {}
        self._wires = wires
        self._gateway = gateway
        super().__init__(path, ("NetworkDriver",))

    def of(self, word: str) -> list[dict[str, Any]]:
        """The bodies of all calls of a method."""
        return [body for method, body in self.calls if method == f"NetworkDriver.{word}"]

    def order(self) -> list[str]:
        """The methods called, without capabilities and information."""
        words = [method.removeprefix("NetworkDriver.") for method, _ in self.calls]
        return [word for word in words if word not in ("Plugin.Activate", "GetCapabilities", "EndpointOperInfo")]

    def _answer(self, method: str, body: dict[str, Any]) -> Answer:
        self.calls.append((method, body))
        word = method.removeprefix("NetworkDriver.")
        if word in self.instead:
            return self.instead[word](body)
        if word == "Plugin.Activate":
            return {"Implements": ["NetworkDriver"]}
        if word == "GetCapabilities":
            return self.capabilities
        act: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_{word}", None)
        if act is None:
            return b"HTTP/1.0 404 Not Found\r\n\r\nno such method"
        try:
            return act(body)
        except (KeyError, OSError) as error:
            return {"Err": f"{type(error).__name__}: {error}"}

    def _GwAllocCheck(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"SkipIPv4": True, "SkipIPv6": False}

    def _CreateNetwork(self, body: dict[str, Any]) -> dict[str, Any]:
        self.networks[body["NetworkID"]] = body
        if self._wires:
            with Netlink() as host:
                if host.link(BRIDGE) is None:
                    host.run(link_add("bridge", BRIDGE, up=True))
                link = host.link(BRIDGE)
                assert link is not None
                for data in (*body["IPv4Data"], *body["IPv6Data"]):
                    if data.get("Gateway"):
                        host.run(address_add(link.index, ip_interface(data["Gateway"])))
        return {}

    def _DeleteNetwork(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.networks[body["NetworkID"]]
        if self._wires and not self.networks:
            with Netlink() as host:
                host.run(link_delete(BRIDGE))
        return {}

    def _CreateEndpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        self.networks[body["NetworkID"]]
        self.endpoints[body["EndpointID"]] = body
        given = dict(self.given)
        if not body["Interface"]["MacAddress"]:
            given.setdefault("MacAddress", mac_of(body))
        return {"Interface": given}

    def _DeleteEndpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.endpoints[body["EndpointID"]]
        if self._wires:
            with Netlink() as host:
                if host.link(self.host_name(body)) is not None:
                    host.run(link_delete(self.host_name(body)))
        return {}

    def _EndpointOperInfo(self, body: dict[str, Any]) -> dict[str, Any]:
        self.endpoints[body["EndpointID"]]
        return {"Value": {}}

    @staticmethod
    def host_name(body: dict[str, Any]) -> str:
        return f"ph{body['EndpointID'][:8]}"

    def _Join(self, body: dict[str, Any]) -> dict[str, Any]:
        self.endpoints[body["EndpointID"]]
        inner = f"pc{body['EndpointID'][:8]}"
        if self._wires:
            with Netlink() as host:
                bridge = host.link(BRIDGE)
                assert bridge is not None
                host.run(link_add("veth", self.host_name(body), peer=inner, master=bridge.index, up=True))
        self.joins.add(body["EndpointID"])
        answer: dict[str, Any] = {"InterfaceName": {"SrcName": inner, "DstPrefix": "plug"}} if self._wires else {}
        data = self.networks[body["NetworkID"]]["IPv4Data"]
        if self._gateway and data and data[0].get("Gateway"):
            answer["Gateway"] = data[0]["Gateway"].partition("/")[0]
        return {**answer, **self.joined}

    def _Leave(self, body: dict[str, Any]) -> dict[str, Any]:
        self.joins.remove(body["EndpointID"])
        return {}

    def _ProgramExternalConnectivity(self, body: dict[str, Any]) -> dict[str, Any]:
        self.external[body["EndpointID"]] = body["Options"]
        return {}

    def _RevokeExternalConnectivity(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.external[body["EndpointID"]]
        return {}


class IpamPlugin(Plugin):
    """Allocates subnets of 10.77.0.0/16 and addresses in them. ``taken``: by pool."""

    def __init__(self, path: Path, **capabilities: bool) -> None:
        self.capabilities: dict[str, Any] | None = dict(capabilities)
        self.pools: dict[str, str] = {}
        self.taken: dict[str, set[str]] = {}
        self.data: dict[str, str] = {}
        self._next = 0
        super().__init__(path, ("IpamDriver",))

    def of(self, word: str) -> list[dict[str, Any]]:
        return [body for method, body in self.calls if method == f"IpamDriver.{word}"]

    def _answer(self, method: str, body: dict[str, Any]) -> Answer:
        self.calls.append((method, body))
        word = method.removeprefix("IpamDriver.")
        if word in self.instead:
            return self.instead[word](body)
        match word:
            case "Plugin.Activate":
                return {"Implements": ["IpamDriver"]}
            case "GetCapabilities":
                return b"HTTP/1.0 404 Not Found\r\n\r\nnone" if self.capabilities is None else self.capabilities
            case "GetDefaultAddressSpaces":
                return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}
            case "RequestPool":
                return self._request_pool(body)
            case "ReleasePool":
                del self.pools[body["PoolID"]], self.taken[body["PoolID"]]
                return {}
            case "RequestAddress":
                return self._request_address(body)
            case "ReleaseAddress":
                self.taken[body["PoolID"]].remove(body["Address"])
                return {}
        return {"Error": f"unknown method {method}"}

    def _request_pool(self, body: dict[str, Any]) -> dict[str, Any]:
        subnet = body["Pool"]
        if not subnet:
            subnet = f"fd77:{self._next}::/64" if body["V6"] else f"10.77.{self._next}.0/24"
            self._next += 1
        identity = f"pool of {subnet}"
        if identity in self.pools:
            return {"Error": f"{subnet} is taken"}
        self.pools[identity] = subnet
        self.taken[identity] = set()
        return {"PoolID": identity, "Pool": subnet, "Data": self.data}

    def _request_address(self, body: dict[str, Any]) -> dict[str, Any]:
        pool = ip_network(self.pools[body["PoolID"]])
        taken = self.taken[body["PoolID"]]
        address = body["Address"] or next(
            str(pool[number]) for number in range(1, 200) if str(pool[number]) not in taken
        )
        if address in taken:
            return {"Error": f"{ip_address(address)} is taken"}
        taken.add(address)
        return {"Address": f"{address}/{pool.prefixlen}"}
