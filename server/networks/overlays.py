"""What the operations on networks need of the networks of a swarm. ``server/networks/overlay`` implements it.

No other module of this package imports that room: ``NetworkContext.overlays`` loads it when the first overlay network
is made or found in the database.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.proxy.forward import Listen
from server.networks.model import Network, SandboxRecord
from server.networks.nftables.mesh import MeshRule


class Overlays(Protocol):
    """What the swarm has told this node of services. All of it is stored, so that a new daemon continues with it."""

    async def load(self) -> None:
        """At the daemon's start, after the networks are read."""

    def names(self, network: Network) -> tuple[Mapping[str, Sequence[str]], Mapping[str, str]]:
        """The names of services and tasks on an overlay network, in lower case, with their addresses; and the names of
        addresses. They precede those of containers."""

    def mesh_rules(self) -> Sequence[MeshRule]:
        """The ports of the routing mesh."""

    def mesh_listens(self) -> Mapping[str, Sequence[Listen]]:
        """What wharf-proxy binds for them, by owner."""

    async def translate(self, sandbox: SandboxRecord) -> None:
        """Writes the translations of virtual addresses in the container's namespace, for the networks that it
        has now. Call it after each change of them, when the record is in ``NetworkContext.sandboxes``.

        :raises WharfError: INTERNAL: the kernel refused.
        """

    async def restore_encryption(self) -> None:
        """Restores what encrypted networks need of IPsec if another program has removed it, and logs that.

        :raises WharfError: INTERNAL: the kernel refused.
        """

    async def recover(self) -> None:
        """At the daemon's start, after ``NetworkContext.sandboxes`` has the running containers: writes all translations
        again. Failures are logged."""
