"""The timelines that clients can ask for: of each container's last create, start and exit, and of the last pulls and
builds. They are in memory: a daemon has those of operations that it has made itself."""

import copy
from collections import deque
from collections.abc import Sequence

from engine.common import limits, timeline
from engine.common.timeline import Record
from server.access.caller import EVERYONE, Caller
from server.access.owners import user_of
from server.containers.service import Containers

#: Those that are kept here; containers have their own.
KEPT = ("pull", "build")


class Timelines:
    """Keeps the timelines of pulls and builds from now on. Call ``close`` at the end."""

    def __init__(self, containers: Containers) -> None:
        self._containers, self._caller = containers, EVERYONE
        self._recent: deque[Record] = deque(maxlen=limits.TIMELINES)
        timeline.observers.append(self)

    def close(self) -> None:
        timeline.observers.remove(self)

    def seen_by(self, caller: Caller, containers: Containers) -> "Timelines":
        """The same timelines for one caller. ``containers``: the service for this caller."""
        bound = copy.copy(self)
        bound._caller, bound._containers = caller, containers
        return bound

    def of_container(self, key: str) -> Sequence[Record]:
        """At most one create, start and exit each: the last one, failed ones included, in the order of their ends.
        ``key``: an id, a name or a prefix of an id.

        :raises WharfError: NOT_FOUND: no such container exists for the caller.
        """
        return self._containers.get(key).timelines

    def recent(self) -> Sequence[Record]:
        """The caller's pulls and builds, the latest last; for an administrator those of all users. At most
        ``TIMELINES``, and at most ``TIMELINES_OF_OWNER`` of one user."""
        return tuple(record for record in self._recent if self._caller.sees(record.owner))

    def ended(self, record: Record) -> None:
        if record.what not in KEPT:
            return
        # One user's builds must not displace those of all others.
        own = [each for each in self._recent if user_of(each.owner) == user_of(record.owner)]
        if len(own) >= limits.TIMELINES_OF_OWNER:
            self._recent.remove(own[0])
        self._recent.append(record)
