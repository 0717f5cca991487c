"""An IPAM driver in a plugin: the methods of ``IpamDriver``."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from engine.common.errors import Kind, WharfError, internal
from server.networks.ipam.allocator import Network as Subnet
from server.networks.netlink.rtnetlink import Interface
from server.networks.remote.messages import Answer
from server.plugins.client import PluginClient, Refused

log = logging.getLogger(__name__)

INTERFACE = "IpamDriver"


@dataclass(frozen=True, slots=True)
class Pool:
    """An allocated subnet. ``gateway``: the one that the plugin chose with it, None: none."""

    id: str
    subnet: Subnet
    gateway: Interface | None = None


class RemoteIpam:
    """The IPAM driver behind a client. Its own refusals are ``remote: …``, as in the reference."""

    def __init__(self, client: PluginClient, *, needs_mac: bool, needs_replay: bool) -> None:
        """``needs_mac``: requests of addresses have the endpoint's MAC address. ``needs_replay``: the plugin stores
        nothing, so the daemon repeats its requests at its start."""
        self.client = client
        self.needs_mac = needs_mac
        self.needs_replay = needs_replay

    @classmethod
    async def activate(cls, client: PluginClient) -> "RemoteIpam":
        """Asks for its capabilities, which a plugin need not have.

        :raises WharfError: it doesn't answer.
        """
        try:
            answer = await _call(client, "GetCapabilities")
        except Refused as refusal:
            log.info("IPAM plugin %s does not support capabilities: %s", client.name, refusal)
            return cls(client, needs_mac=False, needs_replay=False)
        return cls(
            client, needs_mac=answer.flag("RequiresMACAddress"), needs_replay=answer.flag("RequiresRequestReplay")
        )

    async def address_spaces(self) -> tuple[str, str]:
        """The names of its local and its global address space."""
        answer = await _call(self.client, "GetDefaultAddressSpaces")
        return answer.text("LocalDefaultAddressSpace"), answer.text("GlobalDefaultAddressSpace")

    async def request_pool(
        self, space: str, subnet: str, area: str, options: Mapping[str, str] | None, *, v6: bool
    ) -> Pool:
        """Allocates a subnet: exactly ``subnet``, or one that the plugin chooses. ``area``: its addresses for
        containers are within this part."""
        body = {"AddressSpace": space, "Pool": subnet, "SubPool": area, "Options": options, "V6": v6}
        answer = await _call(self.client, "RequestPool", body)
        text = answer.text("Pool")
        try:
            found = ip_network(text, strict=False)
            if "/" not in text:
                raise ValueError
        except ValueError:
            raise internal(f"netip.ParsePrefix({_quoted(text)}): no valid prefix") from None
        if (found.version == 6) != v6:
            raise internal(f"{answer.method}: {text} is no IPv{6 if v6 else 4} subnet")
        data = Answer(answer.method, answer.texts("Data"))
        try:
            gateway = data.interface("com.docker.network.gateway", found.version)
        except WharfError as error:
            chosen = data.text("com.docker.network.gateway")
            raise error.worded(
                f"failed to parse gateway address ({chosen}) returned by ipam driver: {error.message}"
            ) from None
        return Pool(answer.text("PoolID"), found, gateway)

    async def release_pool(self, pool: str) -> None:
        await _call(self.client, "ReleasePool", {"PoolID": pool})

    async def request_address(
        self, pool: str, address: str, options: Mapping[str, str] | None, version: int
    ) -> Interface:
        """Allocates ``address``, or one that the plugin chooses."""
        answer = await _call(self.client, "RequestAddress", {"PoolID": pool, "Address": address, "Options": options})
        found = answer.interface("Address", version)
        if found is None:
            raise internal("no address returned")
        return found

    async def release_address(self, pool: str, address: str) -> None:
        await _call(self.client, "ReleaseAddress", {"PoolID": pool, "Address": address})


def _quoted(text: str) -> str:
    return f'"{text}"'


async def _call(client: PluginClient, method: str, body: Mapping[str, object] | None = None) -> Answer:
    name = f"{INTERFACE}.{method}"
    answer = Answer(name, await client.answer(name, body, deadline="network.plugin"))
    if failure := answer.text("Error"):
        raise Refused(Kind.INTERNAL, f"remote: {failure}")
    return answer
