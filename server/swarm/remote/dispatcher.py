"""The dispatcher of a worker: requests to the managers."""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from api_models.swarm.node import NodeDescription
from engine.common.errors import Kind, WharfError
from server.networks.overlay.model import Keyring
from server.swarm.agent.dispatcher import MAX_NAMES, Assignments, NodeAddress, Payload
from server.swarm.model.objects import TaskStatus
from server.swarm.remote import lines, wire
from server.swarm.remote.client import Managers

_AT = f"{wire.VERSION}/dispatcher"
#: How many statuses one request has at most: a request has a bound, and a status may have a long error.
_BATCH = 200
#: The most images of a service's tasks on one node, and of the characters of their names.
_IMAGES, _LONGEST = 256, 4096
#: Seconds that one manager has for the answer to a heartbeat: another one must get it before the session is over.
_BEAT = 3.0
#: Seconds until the next heartbeat, if a manager's answer has no number.
_PERIOD = 5.0


class RemoteDispatcher:
    """Implements ``server.swarm.agent.dispatcher.Dispatcher``. ``advertise_addr``, ``data_path_addr``: as in
    ``records.JoinRequest``."""

    def __init__(self, managers: Managers, advertise_addr: str = "", data_path_addr: str = "") -> None:
        self._managers = managers
        self._addresses = {"advertise_addr": advertise_addr, "data_path_addr": data_path_addr}

    async def assignments(self) -> AsyncGenerator[Assignments, None]:
        """Continues at another manager if one fails; each stream begins with the whole state."""
        last: Assignments | None = None
        while True:
            current = lines.EMPTY
            began = False
            try:
                async with contextlib.aclosing(self._managers.stream(f"{_AT}/assignments")) as documents:
                    async for line in documents:
                        began = True
                        current = lines.apply(current, line)
                        if current != last:
                            yield current
                            last = current
            except WharfError as error:
                if error.kind is not Kind.UNAVAILABLE or not began:
                    raise
            if not began:
                raise WharfError(Kind.UNAVAILABLE, "rpc error: code = Unavailable desc = the stream has ended")

    async def report(self, statuses: Mapping[str, TaskStatus]) -> None:
        items = list(statuses.items())
        for start in range(0, len(items), _BATCH):
            await self._post("/report", wire.statuses_document(dict(items[start : start + _BATCH])))

    async def describe(self, description: NodeDescription) -> None:
        await self._post("/describe", {**self._addresses, "description": description.wire()})

    async def report_images(self, keys: str) -> None:
        await self._post("/images", {"keys": keys})

    async def heartbeat(self) -> float:
        seconds = (await self._managers.request("POST", f"{_AT}/heartbeat", {}, silence=_BEAT)).get("seconds")
        return float(seconds) if isinstance(seconds, int | float) and seconds > 0 else _PERIOD

    async def end(self) -> None:
        """Ends the session: the node leaves the swarm."""
        await self._post("/end", {})

    async def secret(self, id: str) -> Payload:
        return wire.payload(await self._managers.request("GET", f"{_AT}/secrets/{id}"))

    async def config(self, id: str) -> Payload:
        return wire.payload(await self._managers.request("GET", f"{_AT}/configs/{id}"))

    async def network_keys(self) -> Keyring:
        return wire.keyring(await self._managers.request("GET", f"{_AT}/keys"))

    async def registry_auth(self, service_id: str) -> str:
        answer = await self._managers.request("GET", f"{_AT}/services/{service_id}/auth")
        return str(answer.get("auth", ""))

    async def image_peers(self, service_id: str) -> Sequence[NodeAddress]:
        answer = await self._managers.request("GET", f"{_AT}/services/{service_id}/peers")
        return wire.peers(answer)

    async def readable_images(self, service_id: str, node_id: str) -> Sequence[str]:
        answer = await self._managers.request("POST", f"{_AT}/readable", {"service": service_id, "node": node_id})
        return wire.texts(answer.get("images"), most=_IMAGES, length=_LONGEST)

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        named = list(names)[:MAX_NAMES]
        document = {"container": container_id, "network": key, "addresses": list(addresses), "names": named}
        # A repetition could make a second task.
        answer = await self._managers.request("POST", f"{_AT}/attachments", document, repeatable=False)
        return str(answer.get("task", "")), str(answer.get("network", ""))

    async def detach_network(self, task_id: str) -> None:
        await self._managers.request("DELETE", f"{_AT}/attachments/{task_id}")

    async def _post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return await self._managers.request("POST", _AT + path, document)
