"""A network driver in a plugin: the methods of ``NetworkDriver``."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from engine.common.errors import Kind, WharfError, internal
from server.networks.netlink.rtnetlink import Interface
from server.networks.remote.messages import Answer, Joined, parse_join
from server.plugins.client import PluginClient, Refused

log = logging.getLogger(__name__)

INTERFACE = "NetworkDriver"
_SCOPES = ("local", "global")


@dataclass(frozen=True, slots=True)
class ChosenInterface:
    """What ``CreateEndpoint`` answered: the parts of the interface that the driver chose."""

    address4: Interface | None = None
    address6: Interface | None = None
    mac: str = ""


@asynccontextmanager
async def _rolled_back(undo: Callable[[str, str], Awaitable[None]], network: str, endpoint: str) -> AsyncIterator[None]:
    """Undoes a call at the plugin if its answer, which is parsed inside, is malformed.

    :raises Refused: the call is undone. :raises WharfError: INTERNAL: ``undo`` failed, too.
    """
    try:
        yield
    except WharfError as error:
        try:
            await undo(network, endpoint)
        except WharfError as second:
            raise internal(f"{second.message}; failed to roll back: {error.message}") from error
        raise Refused(Kind.INTERNAL, f"{error.message}; rolled back") from error


class RemoteDriver:
    """The driver behind a client. Its own refusals are ``remote: …``, as in the reference.

    After Refused and Unreachable, the plugin has done nothing, or has undone it. After another error, it may have done
    it.
    """

    def __init__(self, client: PluginClient, scope: str, *, checks_gateway: bool) -> None:
        """``scope``: local or global. ``checks_gateway``: it implements :meth:`skips_gateway`."""
        self.client = client
        self.scope = scope
        self._checks_gateway = checks_gateway

    @classmethod
    async def activate(cls, client: PluginClient) -> "RemoteDriver":
        """Asks for its capabilities.

        :raises WharfError: INTERNAL: they are invalid, or the plugin doesn't answer.
        """
        answer = await _call(client, "GetCapabilities")
        scope, connectivity = answer.text("Scope"), answer.text("ConnectivityScope")
        for word in (scope, connectivity or scope):
            if word not in _SCOPES:
                raise internal(f"invalid capability: expecting 'local' or 'global', got {word}")
        return cls(client, scope, checks_gateway=answer.flag("GwAllocChecker"))

    async def skips_gateway(self, options: Mapping[str, object]) -> tuple[bool, bool]:
        """Whether the engine must not allocate an IPv4 and an IPv6 gateway for a network with these options."""
        if not self._checks_gateway:
            return False, False
        answer = await _call(self.client, "GwAllocCheck", {"Options": options})
        return answer.flag("SkipIPv4"), answer.flag("SkipIPv6")

    async def create_network(
        self,
        network: str,
        options: Mapping[str, object],
        data4: Sequence[Mapping[str, object]],
        data6: Sequence[Mapping[str, object]],
    ) -> None:
        body = {"NetworkID": network, "Options": options, "IPv4Data": data4, "IPv6Data": data6}
        await _call(self.client, "CreateNetwork", body)

    async def delete_network(self, network: str) -> None:
        await _call(self.client, "DeleteNetwork", {"NetworkID": network})

    async def create_endpoint(
        self, network: str, endpoint: str, interface: Mapping[str, str], options: Mapping[str, object]
    ) -> ChosenInterface:
        """``interface`` has ``Address``, ``AddressIPv6`` and ``MacAddress``, each "" for the driver to choose."""
        body = {**_ids(network, endpoint), "Interface": interface, "Options": options}
        answer = await _call(self.client, "CreateEndpoint", body)
        async with _rolled_back(self.delete_endpoint, network, endpoint):
            return _chosen_interface(answer, interface)

    async def delete_endpoint(self, network: str, endpoint: str) -> None:
        await _call(self.client, "DeleteEndpoint", _ids(network, endpoint))

    async def endpoint_info(self, network: str, endpoint: str) -> None:
        """``EndpointOperInfo``. The reference asks too, and uses nothing of what a plugin answers on Linux."""
        await _call(self.client, "EndpointOperInfo", _ids(network, endpoint))

    async def join(self, network: str, endpoint: str, path: str, options: Mapping[str, object]) -> Joined:
        """``path``: the namespace."""
        body = {**_ids(network, endpoint), "SandboxKey": path, "Options": options}
        answer = await _call(self.client, "Join", body)
        async with _rolled_back(self.leave, network, endpoint):
            return parse_join(answer)

    async def leave(self, network: str, endpoint: str) -> None:
        await _call(self.client, "Leave", _ids(network, endpoint))

    async def program_external(self, network: str, endpoint: str, options: Mapping[str, object]) -> None:
        """The container's outgoing traffic leaves by this endpoint; ``options`` has the ports to publish."""
        await self._call_optional("ProgramExternalConnectivity", {**_ids(network, endpoint), "Options": options})

    async def revoke_external(self, network: str, endpoint: str) -> None:
        await self._call_optional("RevokeExternalConnectivity", _ids(network, endpoint))

    async def _call_optional(self, method: str, body: Mapping[str, object]) -> None:
        """A method that drivers need not implement: they answer 404."""
        try:
            await _call(self.client, method, body)
        except Refused as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise


def _ids(network: str, endpoint: str) -> dict[str, object]:
    return {"NetworkID": network, "EndpointID": endpoint}


async def _call(client: PluginClient, method: str, body: Mapping[str, object] | None = None) -> Answer:
    name = f"{INTERFACE}.{method}"
    answer = Answer(name, await client.answer(name, body, deadline="network.plugin"))
    if failure := answer.text("Err"):
        raise Refused(Kind.INTERNAL, f"remote: {failure}")
    return answer


def _chosen_interface(answer: Answer, interface: Mapping[str, str]) -> ChosenInterface:
    """What the driver chose; it may choose only what the engine left open."""
    found = answer.inner("Interface")
    if found is None:
        return ChosenInterface()
    mac = found.text("MacAddress")
    if mac and not _is_mac(mac):
        raise internal(f"address {mac}: invalid MAC address")
    if mac and interface["MacAddress"]:
        raise internal(
            f"driver modified interface MAC address: endpoint interface MAC address present "
            f"({interface['MacAddress']}). Cannot be modified with {mac}."
        )
    chosen = ChosenInterface(
        found.interface("Address", 4), found.interface("AddressIPv6", 6), mac.lower().replace("-", ":")
    )
    for present, address in ((interface["Address"], chosen.address4), (interface["AddressIPv6"], chosen.address6)):
        if present and address is not None:
            raise internal(
                f"driver modified interface address: endpoint interface IP present ({present}). "
                f"Cannot be modified with ({address})."
            )
    return chosen


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    return len(parts) == 6 and all(len(part) == 2 and set(part.lower()) <= set("0123456789abcdef") for part in parts)
