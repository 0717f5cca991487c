"""The routes of the managers' port."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar

from starlette.responses import Response

from api_models.record import Record
from api_models.swarm.node import NodeDescription
from engine.common import limits
from engine.common.errors import Kind, WharfError, invalid
from server.networks.overlay.model import Keyring
from server.swarm.agent.dispatcher import MAX_NAMES, Assignments, Dispatcher
from server.swarm.model import images
from server.swarm.operations.admission import Admission, check_description
from server.swarm.operations.members import Members
from server.swarm.remote import wire
from server.swarm.remote.lines import EMPTY, Differences
from server.swarm.remote.records import JoinRequest, MemberRequest
from server.swarm.state.state import State
from server.swarmapi.application import Call, Route, SwarmApp, json_answer, unexpected
from server.swarmapi.attempts import Attempts
from server.swarmapi.caller import Access, Caller, check
from server.swarmapi.streams import Slots, lines, newest

R = TypeVar("R", bound=Record)
T = TypeVar("T")

#: The most streams of one kind that a node has: those whose connection broke last for a while.
_STREAMS = 16


@dataclass(frozen=True, slots=True)
class ManagerPort:
    """What the port needs of its manager. ``dispatcher``: that of a node; one node always has the same, as it keeps the
    node's session. ``period``: seconds between two lines of a stream at the most."""

    state: State
    admission: Admission
    dispatcher: Callable[[str], Dispatcher]
    members: Members
    period: float = wire.SIGN_OF_LIFE


def manager_app(port: ManagerPort) -> SwarmApp:
    def check_now(caller: Caller, access: Access) -> None:
        check(caller, access, port.state.cluster.id, port.state.tables)

    async def check_caller(caller: Caller, access: Access) -> None:
        try:
            check_now(caller, access)
        except WharfError:
            if not caller.node_id:
                raise
            # Another manager may have admitted or promoted the node a moment ago.
            await port.state.synchronize()
            check_now(caller, access)

    membership, dispatch = _Membership(port, check_now), _Dispatch(port, check_now)
    return SwarmApp([*membership.routes(), *dispatch.routes()], check_caller)


class _Membership:
    """Joining, certificates, the list of managers, members of etcd."""

    def __init__(self, port: ManagerPort, check: Callable[[Caller, Access], None]) -> None:
        self._port = port
        self._check = check
        self._slots = Slots(_STREAMS)
        self._attempts = Attempts()

    def routes(self) -> list[Route]:
        at = wire.VERSION
        return [
            Route("GET", f"{at}/ca", Access.ANYONE, self._root),
            Route("POST", f"{at}/join", Access.ANYONE, self._join),
            Route("POST", f"{at}/renew", Access.KNOWN, self._renew),
            Route("GET", f"{at}/managers", Access.KNOWN, self._managers),
            Route("POST", f"{at}/member", Access.MANAGER, self._member),
            Route("POST", f"{at}/member/promote", Access.MANAGER, self._promote),
            Route("POST", f"{at}/member/leave", Access.MANAGER, self._leave),
        ]

    async def _root(self, call: Call) -> Response:
        return json_answer({"certificate": self._port.admission.root()})

    async def _join(self, call: Call) -> Response:
        request = parse(JoinRequest, await call.body())
        with self._attempts.attempt(call.caller.address):
            admitted = await self._port.admission.join(request, call.caller.address)
        return json_answer(admitted.wire())

    async def _renew(self, call: Call) -> Response:
        (csr,) = wire.strings(await call.body(), "csr", length=wire.MAX_REQUEST)
        return json_answer((await self._port.admission.renew(call.caller.node_id, csr)).wire())

    async def _managers(self, call: Call) -> Response:
        await self._port.admission.presented(call.caller.node_id, call.caller.certificate)

        async def documents() -> AsyncGenerator[dict[str, Any] | None, None]:
            with self._slots.taken(call.caller.node_id):
                standings = self._port.admission.standing(call.caller.node_id)
                async with contextlib.aclosing(newest(standings, self._port.period)) as found:
                    async for standing in found:
                        yield None if standing is None else standing.wire()

        return lines(documents(), partial(self._check, call.caller, Access.KNOWN))

    async def _member(self, call: Call) -> Response:
        request = parse(MemberRequest, await call.body())
        return json_answer((await self._port.members.join(call.caller.node_id, request, call.caller.address)).wire())

    async def _promote(self, call: Call) -> Response:
        await self._port.members.promote(call.caller.node_id)
        return json_answer({})

    async def _leave(self, call: Call) -> Response:
        await self._port.members.leave(call.caller.node_id, parse(MemberRequest, await call.body()))
        return json_answer({})


class _Dispatch:
    """The dispatcher of the calling node: it is chosen by the certificate only."""

    def __init__(self, port: ManagerPort, check: Callable[[Caller, Access], None]) -> None:
        self._port = port
        self._check = check
        self._slots = Slots(_STREAMS)
        self._differences = Differences()

    def routes(self) -> list[Route]:
        at = f"{wire.VERSION}/dispatcher"
        return [
            Route(method, at + path, Access.NODE, handler)
            for method, path, handler in (
                ("GET", "/assignments", self._assignments),
                ("POST", "/report", self._report),
                ("POST", "/describe", self._describe),
                ("POST", "/images", self._images),
                ("POST", "/heartbeat", self._heartbeat),
                ("POST", "/end", self._end),
                ("GET", "/secrets/{id}", self._secret),
                ("GET", "/configs/{id}", self._config),
                ("GET", "/keys", self._network_keys),
                ("GET", "/services/{id}/auth", self._registry_auth),
                ("GET", "/services/{id}/peers", self._peers),
                ("POST", "/readable", self._readable),
                ("POST", "/attachments", self._attach),
                ("DELETE", "/attachments/{id}", self._detach),
            )
        ]

    def _of(self, call: Call) -> Dispatcher:
        return self._port.dispatcher(call.caller.node_id)

    async def _assignments(self, call: Call) -> Response:
        async def documents() -> AsyncGenerator[dict[str, Any] | None, None]:
            last: Assignments | None = None
            with self._slots.taken(call.caller.node_id):
                async with contextlib.aclosing(newest(self._of(call).assignments(), self._port.period)) as found:
                    async for current in found:
                        if current is None:
                            yield None
                            continue
                        line = self._differences.line(last or EMPTY, current)
                        if line or last is None:
                            yield line
                        last = current

        return lines(documents(), partial(self._check, call.caller, Access.NODE))

    async def _report(self, call: Call) -> Response:
        statuses = wire.statuses(await call.body())
        if any(self._port.state.tables.tasks.find(id) is None for id in statuses):
            # The node may have learnt of them from another manager.
            await self._port.state.synchronize()
        await self._of(call).report(statuses)
        return json_answer({})

    async def _describe(self, call: Call) -> Response:
        document = await call.body()
        advertised, data_path = wire.strings(document, "advertise_addr", "data_path_addr")
        found = document.get("description")
        description = parse(NodeDescription, found if isinstance(found, dict) else {})
        check_description(description)
        await self._port.admission.locate(call.caller.node_id, advertised, data_path, call.caller.address)
        await self._of(call).describe(description)
        return json_answer({})

    async def _images(self, call: Call) -> Response:
        (keys,) = wire.strings(await call.body(), "keys", length=wire.MAX_REQUEST)
        if not images.valid(keys):
            raise invalid("malformed keys of images")
        await self._of(call).report_images(keys)
        return json_answer({})

    async def _heartbeat(self, call: Call) -> Response:
        return json_answer({"seconds": await self._of(call).heartbeat()})

    async def _end(self, call: Call) -> Response:
        await self._of(call).end()
        return json_answer({})

    async def _secret(self, call: Call) -> Response:
        return json_answer(wire.payload_document(await self._found(self._of(call).secret, call.params["id"])))

    async def _config(self, call: Call) -> Response:
        return json_answer(wire.payload_document(await self._found(self._of(call).config, call.params["id"])))

    async def _network_keys(self, call: Call) -> Response:
        async def get(_: str) -> Keyring:
            return await self._of(call).network_keys()

        return json_answer(wire.keyring_document(await self._found(get, "")))

    async def _registry_auth(self, call: Call) -> Response:
        return json_answer({"auth": await self._found(self._of(call).registry_auth, call.params["id"])})

    async def _peers(self, call: Call) -> Response:
        return json_answer(wire.peers_document(await self._found(self._of(call).image_peers, call.params["id"])))

    async def _readable(self, call: Call) -> Response:
        service, node = wire.strings(await call.body(), "service", "node")
        return json_answer({"images": await self._of(call).readable_images(service, node)})

    async def _found(self, get: Callable[[str], Awaitable[T]], id: str) -> T:
        """Looks again with the newest state: the node may have learnt of its task from another manager."""
        try:
            return await get(id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        await self._port.state.synchronize()
        return await get(id)

    async def _attach(self, call: Call) -> Response:
        document = await call.body()
        container, key = wire.strings(document, "container", "network")
        addresses = wire.texts(document.get("addresses", []), most=2)
        for address in addresses:
            try:
                ip_address(address)
            except ValueError:
                raise invalid(f"invalid IP address: {address}") from None
        tasks = self._port.state.tables.tasks.of_node(call.caller.node_id)
        if sum(task.spec.network_attachment_spec is not None for task in tasks) >= limits.SWARM_ATTACHMENTS:
            raise limits.exceeded("SWARM_ATTACHMENTS", "the number of attached containers of the node")
        names = wire.texts(document.get("names", []), most=MAX_NAMES)
        task_id, network_id = await self._of(call).attach_network(container, key, addresses, names)
        return json_answer({"task": task_id, "network": network_id})

    async def _detach(self, call: Call) -> Response:
        task = self._port.state.tables.tasks.find(call.params["id"])
        # Other tasks of the node are the orchestrators'.
        if task is not None and task.spec.network_attachment_spec is not None:
            await self._of(call).detach_network(task.id)
        return json_answer({})


def parse(record: type[R], document: dict[str, Any]) -> R:
    """:raises WharfError: INVALID_ARGUMENT."""
    try:
        return record.parse(document)
    except ValueError as error:
        raise unexpected(error) from None
