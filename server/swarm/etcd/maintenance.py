"""Keeps the member of this node within its quota of disk.

etcd raises the alarm NOSPACE for a member whose database has reached its quota, and then refuses everything that adds
data, on all members, until the alarm is disarmed. A lease can't be made then: there may be no leader of the swarm, and
no manager can tell others by the store what it does. So each manager looks after its own member, in an order that
follows from the alarms: one member at a time is defragmented, which blocks it, and etcd's leader comes last.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from engine.common.errors import WharfError
from server.swarm.etcd.members import Members, MemberStatus

log = logging.getLogger(__name__)

#: Seconds between two looks: etcd has no watch of alarms. A look is answered from the member's memory.
_LOOK = 15.0
#: A member waits so many seconds for those before it: one of them may be down.
_PATIENCE = 60.0
#: Of the quota: an alarm is disarmed below the first, and a defragmentation must release the second to be worth it.
_ENOUGH, _WORTH = 0.9, 0.05


class Maintenance:
    """A part of each manager of a swarm with an etcd of its own. ``members``: asks this node's member.
    ``quota``: bytes, as ``MemberOptions.quota``."""

    def __init__(self, members: Members, quota: int, *, look: float = _LOOK) -> None:
        self._members = members
        self._quota = quota
        self._look = look
        #: Since when another member is before this one; 0: none is.
        self._waiting = 0.0
        #: The alarm was logged.
        self._noted = False

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self.look()
            except WharfError as error:
                log.debug("etcd's alarms can't be handled: %s", error.message)
            await asyncio.sleep(self._look)

    async def look(self) -> None:
        """Does what is due now."""
        alarmed = await self._members.without_space()
        status = await self._members.status()
        if status.id not in alarmed:
            self._waiting, self._noted = 0.0, False
            return
        if not self._noted:
            self._noted = True
            log.error(
                "etcd: alarm NOSPACE: the database of this manager has %d of %d bytes; the swarm accepts no changes"
                " that need space until it has less",
                status.size,
                self._quota,
            )
        if self._must_wait(alarmed, status):
            return
        await self._make_space(status)

    def _must_wait(self, alarmed: Sequence[int], status: MemberStatus) -> bool:
        order = sorted(alarmed, key=lambda id: (id == status.leader, id))
        if order[0] == status.id:
            self._waiting = 0.0
            return False
        now = time.monotonic()
        self._waiting = self._waiting or now
        return now - self._waiting < _PATIENCE * order.index(status.id)

    async def _make_space(self, status: MemberStatus) -> None:
        # A watch that is behind reads everything again.
        await self._members.compact(status.revision)
        status = await self._members.status()
        if status.size - status.used >= _WORTH * self._quota:
            await self._members.defragment()
            status = await self._members.status()
        if status.size > _ENOUGH * self._quota:
            return  # until objects are removed, which etcd accepts
        await self._members.disarm(status.id)
        log.warning("etcd: alarm NOSPACE is over: the database has %d of %d bytes", status.size, self._quota)
