"""The networks of the swarm on this node: made before the containers of tasks, removed when nothing uses them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from engine.common.errors import Kind, WharfError, internal
from server.networks.overlay.model import Keyring, OverlayNetworks
from server.swarm.agent.dispatcher import Assignments

log = logging.getLogger(__name__)

#: The keys of the routing mesh, and of the keys of encrypted networks, beside the ids of networks.
_MESH, _KEYS = "routing mesh", "keys of encrypted networks"


class NetworkSync:
    """Call ``apply`` with each change of the assignments, before the tasks are changed: then a task that is to stop
    gets no new connections. ``overlay`` None: this engine makes no networks of the swarm. ``keys``: asks the managers
    (``Dispatcher.network_keys``)."""

    def __init__(self, overlay: OverlayNetworks | None, keys: Callable[[], Awaitable[Keyring]]) -> None:
        self._overlay = overlay
        self._keys = keys
        self._lock = asyncio.Lock()
        self._wanted: Assignments | None = None
        # What was applied, by the network's id: it need not be applied again at the change of something else.
        self._applied: dict[str, object] = {}
        # Logged errors, so that each is logged once.
        self._errors: dict[str, str] = {}

    async def apply(self, assignments: Assignments) -> None:
        """Errors are logged; they are tried again at the next change.

        :raises WharfError: UNAVAILABLE: no manager answers the question for keys: call it again.
        """
        overlay = self._overlay
        self._wanted = assignments
        if overlay is None:
            return
        async with self._lock:
            await self._encrypt(overlay, assignments.keys)
            for network in assignments.networks.values():
                # The names of containers that users attached here are known, and end with them.
                services = tuple(
                    each
                    for each in assignments.services.get(network.id, ())
                    if each.service_id not in assignments.tasks
                )
                peers = tuple(assignments.peers.get(network.id, ()))
                if self._applied.get(network.id) == (network, peers, services):
                    continue
                try:
                    await overlay.realize(network)
                    await overlay.connect(network.id, peers)
                    await overlay.balance(network.id, services)
                except WharfError as error:
                    self._failed(network.id, f"network {network.name}: {error}")
                else:
                    self._succeeded(network.id, (network, peers, services))
            mesh = tuple(assignments.mesh)
            if self._applied.get(_MESH) == mesh:
                return
            try:
                await overlay.publish(mesh)
            except WharfError as error:
                self._failed(_MESH, f"{_MESH}: {error}")
            else:
                self._succeeded(_MESH, mesh)

    def check(self, network_id: str) -> None:
        """:raises WharfError: INTERNAL: the last change of a network has failed; why."""
        if (sentence := self._errors.get(network_id)) is not None:
            raise internal(sentence)

    async def _encrypt(self, overlay: OverlayNetworks, number: int) -> None:
        if not number or self._applied.get(_KEYS) == number:
            return
        try:
            await overlay.encrypt(await self._keys())
        except WharfError as error:
            if error.kind is Kind.UNAVAILABLE:
                raise
            self._failed(_KEYS, f"{_KEYS}: {error}")
        else:
            self._succeeded(_KEYS, number)

    async def discard_unused(self) -> None:
        """Removes the networks that are not assigned to this node any more, unless a container uses them: then this is
        called again after its removal."""
        overlay, wanted = self._overlay, self._wanted
        if overlay is None or wanted is None:
            return
        async with self._lock:
            for network_id in set(overlay.realized()) - set(wanted.networks):
                self._applied.pop(network_id, None)
                try:
                    await overlay.discard(network_id)
                except WharfError as error:
                    if error.kind is not Kind.CONFLICT:
                        self._failed(network_id, f"network {network_id} is not removed: {error}")

    def _succeeded(self, key: str, applied: object) -> None:
        self._applied[key] = applied
        self._errors.pop(key, None)

    def _failed(self, key: str, sentence: str) -> None:
        self._applied.pop(key, None)
        if self._errors.get(key) != sentence:
            log.error("%s", sentence)
        self._errors[key] = sentence
