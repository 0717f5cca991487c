"""Restores bridges, firewall rules and IPsec that another program removes while the engine runs.

The kernel's notifications tell which device or table changed (``server/networks/netlink/watch.py``); a network's
devices and rules are then compared with its record and restored. The pause between restorations grows with repeated
removals.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection

from engine.common.errors import WharfError
from server.networks.bridges import bridge_repair
from server.networks.context import NetworkContext
from server.networks.model import Network
from server.networks.netlink.watch import Changes, Watch

log = logging.getLogger(__name__)

#: Seconds between two successive restorations, doubled each time up to the second value.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0


class Reconciler:
    """Watches the host's links and rules from :meth:`start` until :meth:`close`."""

    def __init__(self, context: NetworkContext) -> None:
        self._context = context
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None
        self._damaged: set[str] = set()  # ids of networks
        self._deletions: set[int] = set()
        self._rules = False
        self._encryption = False
        self._pause = 0.0
        self._last = 0.0  # the time of the last restoration
        self._failures: dict[str, str] = {}

    def start(self) -> None:
        """Starts watching.

        :raises OSError: the kernel lacks nftables.
        """
        context = self._context
        self._watch = Watch(self._changed, context.firewall.table if context.firewall.enabled else "")
        context.watch_encryption = self._watch.watch_encryption
        if any(network.encrypted for network in context):
            self._watch.watch_encryption()

    async def close(self) -> None:
        """Stops watching; waits for a running restoration. A second call does nothing."""
        if self._watch is not None:
            self._watch.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _changed(self, changes: Changes) -> None:
        self._damaged |= {network.id for network in self._concerned(changes)}
        self._rules |= changes.rules
        self._deletions |= changes.deletions
        self._encryption |= changes.encryption
        if (self._damaged or self._rules or self._encryption) and (self._task is None or self._task.done()):
            self._task = self._context.spawn(self._run(), "restore networks")

    def _concerned(self, changes: Changes) -> Collection[Network]:
        """The networks that a change may have damaged; the engine's own changes don't count."""
        networks = [network for network in self._context if network.bridged and network.ready]
        if changes.lost:
            return networks
        by_name = {network.bridge: network for network in networks}
        by_index = {network.index: network for network in networks}
        by_port = {network.vxlan: network for network in networks if network.vxlan_local}
        found = {by_index[index] for index in changes.addresses if index in by_index}
        loose = set()
        for change in changes.links.values():
            network = by_index.get(change.index) or by_name.get(change.name)
            if network is not None:
                same = (change.index, change.name) == (network.index, network.bridge)
                if change.gone or not change.up or not same:
                    found.add(network)
            elif change.name in by_port:
                if change.gone or not change.up or change.master != by_port[change.name].index:
                    found.add(by_port[change.name])
            elif not change.gone and (not change.master or not change.up):
                loose.add(change.name)
        if loose:
            found |= {
                network
                for network in networks
                if any(endpoint.veth in loose for endpoint in network.endpoints.values())
            }
        return found

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._damaged or self._rules or self._encryption:
            await self._restore_encryption()
            if loop.time() - self._last > _LONGEST_PAUSE:
                self._pause = 0.0
            elif self._damaged or self._deletions or self._failures:
                await asyncio.sleep(max(0.0, self._last + self._pause - loop.time()))
            damaged, self._damaged = self._damaged, set()
            deletions, self._deletions = self._deletions, set()
            self._rules = False
            networks = [network for id in damaged if (network := self._context.networks.get(id)) is not None]
            if await self.check(networks, deletions) or self._failures:
                self._last = loop.time()
                self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)

    async def check(self, networks: Collection[Network], deletions: Collection[int] = ()) -> bool:
        """Restores these networks' bridges, and the rules. Failures are logged and retried.

        :param deletions: see ``Firewall.check``.
        """
        context = self._context
        restored = False
        self._failures = {key: text for key, text in self._failures.items() if not key or key in context.networks}
        present = await context.run_in_thread(bridge_repair.host_links, context) if networks else {}
        for network in networks:
            try:
                restored |= await context.run_in_thread(bridge_repair.restore, context, network, present)
                self._failures.pop(network.id, None)
            except WharfError as error:
                self._failed(network.id, error.message)
                self._damaged.add(network.id)
        try:
            restored |= await context.run_in_thread(context.firewall.check, deletions)
            self._failures.pop("", None)
        except OSError as error:
            table = f"table inet {context.firewall.table}"
            self._failed("", f"{table} was changed by another program and cannot be restored: {error}")
            self._rules = True
        return restored

    async def _restore_encryption(self) -> None:
        """Without a pause: until then, networks whose policies are gone are not encrypted."""
        if self._encryption:
            self._encryption = False
            try:
                await self._context.overlays.restore_encryption()
            except WharfError as error:
                log.error("%s", error.message)

    def _failed(self, key: str, text: str) -> None:
        # Log a repeated failure once.
        if self._failures.get(key) != text:
            log.error("%s", text)
            self._failures[key] = text
