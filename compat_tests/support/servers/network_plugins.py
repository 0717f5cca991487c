"""A network driver and an IPAM driver of the legacy plugin protocol, for real engines."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import subprocess
from collections.abc import Callable
from typing import Any

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.servers.plugins import Plugin, response

NO_METHOD = response(404, b'{"Err": "no such method"}')


class NetworkPlugin(Plugin):
    """Attaches containers by veth pairs to a bridge of its own, which has the networks' gateways.

    ``joined`` is merged into the answers to ``Join``. ``instead``: replacement answers of methods.
    """

    def __init__(self, engine: Engine, name: str, *, gateway: bool = True, scope: str = "local") -> None:
        self._inside = ("nsenter", f"--net={engine.netns}") if isinstance(engine, Dockerd) else ()
        self.bridge = f"wtp{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        self.gateway, self.scope = gateway, scope
        self.networks: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.joins: set[str] = set()
        self.external: set[str] = set()
        self.joined: dict[str, Any] = {}
        self.instead: dict[str, Callable[[], dict[str, Any] | bytes]] = {}
        super().__init__(engine, name)

    def of(self, word: str) -> list[dict[str, Any]]:
        return [body for method, body in self.calls if method == f"NetworkDriver.{word}"]

    def ip(self, *args: str, check: bool = True) -> str:
        """Run ip(8) in the engine's network namespace."""
        done = subprocess.run((*self._inside, "ip", *args), capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            raise OSError(f"ip {' '.join(args)}: {done.stderr}")
        return done.stdout

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any] | bytes:
        word = method.removeprefix("NetworkDriver.")
        if word in self.instead:
            return self.instead[word]()
        if word == "Plugin.Activate":
            return {"Implements": ["NetworkDriver"]}
        if word == "GetCapabilities":
            return {"Scope": self.scope, "ConnectivityScope": self.scope}
        act: Callable[[str, str, dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_{word}", None)
        if act is None:
            return NO_METHOD
        try:
            return act(body["NetworkID"], body.get("EndpointID", ""), body)
        except (KeyError, OSError) as error:
            return {"Err": f"{type(error).__name__}: {error}"}

    def _CreateNetwork(self, network: str, _: str, body: dict[str, Any]) -> dict[str, Any]:
        self.networks[network] = body
        if len(self.networks) == 1:
            self.ip("link", "add", self.bridge, "type", "bridge")
            self.ip("link", "set", self.bridge, "up")
        for data in body["IPv4Data"]:
            if data.get("Gateway"):
                self.ip("addr", "replace", data["Gateway"], "dev", self.bridge)
        return {}

    def _DeleteNetwork(self, network: str, _: str, body: dict[str, Any]) -> dict[str, Any]:
        del self.networks[network]
        if not self.networks:
            self.ip("link", "del", self.bridge)
        return {}

    def _CreateEndpoint(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        self.endpoints[endpoint] = body
        octets = ":".join(endpoint[index : index + 2] for index in range(0, 10, 2))
        return {"Interface": {} if body["Interface"]["MacAddress"] else {"MacAddress": f"02:{octets}"}}

    def _DeleteEndpoint(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        del self.endpoints[endpoint]
        self.ip("link", "del", f"wtph{endpoint[:8]}", check=False)
        return {}

    def _EndpointOperInfo(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"Value": {"endpoint": self.endpoints[endpoint]["EndpointID"]}}

    def _Join(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        outer, inner = f"wtph{endpoint[:8]}", f"wtpc{endpoint[:8]}"
        self.ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        self.ip("link", "set", outer, "master", self.bridge, "up")
        self.joins.add(endpoint)
        answer: dict[str, Any] = {"InterfaceName": {"SrcName": inner, "DstPrefix": "plug"}}
        data = self.networks[network]["IPv4Data"]
        if self.gateway and data and data[0].get("Gateway"):
            answer["Gateway"] = data[0]["Gateway"].partition("/")[0]
        return {**answer, **self.joined}

    def _Leave(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        self.joins.remove(endpoint)
        return {}

    def _ProgramExternalConnectivity(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        self.external.add(endpoint)
        return {}

    def _RevokeExternalConnectivity(self, network: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        self.external.remove(endpoint)
        return {}

    def sweep(self) -> None:
        """Remove the devices that a test left: a dead plugin's, and the bridge."""
        for name in self.devices():
            self.ip("link", "del", name, check=False)

    def devices(self) -> set[str]:
        """The driver's devices on the host."""
        rows = self.ip("-o", "link", "show").splitlines()
        names = {row.split(": ")[1].partition("@")[0] for row in rows}
        mine = {f"wtp{side}{endpoint[:8]}" for endpoint in self._known() for side in "hc"}
        return {name for name in names if name in mine or name == self.bridge}

    def _known(self) -> set[str]:
        return {body["EndpointID"] for body in self.of("CreateEndpoint")}


class IpamPlugin(Plugin):
    """Allocates subnets below ``base``, and addresses in them. ``taken``: addresses by pool."""

    def __init__(self, engine: Engine, name: str, base: ipaddress.IPv4Network, **capabilities: bool) -> None:
        self.base, self.capabilities = base, capabilities
        self.pools: dict[str, str] = {}
        self.taken: dict[str, set[str]] = {}
        super().__init__(engine, name)

    def of(self, word: str) -> list[dict[str, Any]]:
        return [body for method, body in self.calls if method == f"IpamDriver.{word}"]

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any] | bytes:
        match method.removeprefix("IpamDriver."):
            case "Plugin.Activate":
                return {"Implements": ["IpamDriver"]}
            case "GetCapabilities":
                return dict(self.capabilities)
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
        return NO_METHOD

    def _request_pool(self, body: dict[str, Any]) -> dict[str, Any]:
        free = (str(each) for each in self.base.subnets(new_prefix=28) if str(each) not in self.pools.values())
        subnet = body["Pool"] or next(free, "")
        if not subnet or subnet in self.pools.values():
            return {"Error": f"no subnet is free for {body['Pool'] or 'anyone'}"}
        identity = f"pool-{subnet}"
        self.pools[identity], self.taken[identity] = subnet, set()
        return {"PoolID": identity, "Pool": subnet, "Data": {"kept": "in memory"}}

    def _request_address(self, body: dict[str, Any]) -> dict[str, Any]:
        pool, taken = ipaddress.IPv4Network(self.pools[body["PoolID"]]), self.taken[body["PoolID"]]
        free = (str(each) for each in pool.hosts() if str(each) not in taken)
        address = body["Address"] or next(free, "")
        if not address or address in taken:
            return {"Error": f"no address is free for {body['Address'] or 'anyone'}"}
        taken.add(address)
        return {"Address": f"{address}/{pool.prefixlen}", "Data": {}}


def plugin_name(engine: Engine, word: str) -> str:
    """A name that no other engine of this host uses: dockerd finds all plugins in the same directory."""
    return f"wharf-{word}-{engine.kind}-{os.getpid()}"
