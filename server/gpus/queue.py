"""The containers that wait for GPUs, in a fair order.

Users take turns: in each turn comes the oldest container of each user. First in a turn are users who had no allocation
yet, by age, then the user whose last allocation is the longest ago. Administrators together are one user.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from server.gpus.allocator import Allocator, Claim, Hold, Shortage


@dataclass(slots=True, eq=False)
class Waiting:
    """A claim in the queue. ``shortage``: why it was not satisfied when it was last tried."""

    claim: Claim
    since_ns: int
    shortage: Shortage = field(default_factory=lambda: Shortage(""))


class FairQueue:
    """The waiting claims of ``allocator``'s GPUs."""

    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator
        # Oldest first.
        self._waiting: list[Waiting] = []
        # User → number of the user's last allocation: larger numbers are later.
        self._served: dict[str, int] = {}
        self._allocations = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, waiting: Waiting) -> bool:
        return waiting in self._waiting

    def add(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """Removes a claim; one that is not in the queue is no error."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def order(self) -> list[Waiting]:
        """All claims, the next one first."""
        turns: dict[str, int] = {}
        keyed = []
        ages = {waiting.claim.user: age for age, waiting in reversed(list(enumerate(self._waiting)))}
        for age, waiting in enumerate(self._waiting):
            user = waiting.claim.user
            turn = turns[user] = turns.get(user, 0) + 1
            keyed.append(((turn, self._served.get(user, 0), ages[user], age), waiting))
        return [waiting for _, waiting in sorted(keyed, key=lambda each: each[0])]

    def advance(self, now_ns: int) -> Iterator[tuple[Waiting, Hold]]:
        """Allocates GPUs to the claims that can be satisfied, and removes those from the queue.

        What a claim could use is reserved for it, so that those behind it don't delay it. Claims of users who have as
        many GPUs as their role allows reserve nothing: no exit of another user's container would help them.
        """
        while (found := self._allocate_next(now_ns)) is not None:
            waiting, hold = found
            self._waiting.remove(waiting)
            self._allocations += 1
            self._served[waiting.claim.user] = self._allocations
            yield waiting, hold

    def _allocate_next(self, now_ns: int) -> tuple[Waiting, Hold] | None:
        reserved: frozenset[str] = frozenset()
        for waiting in self.order():
            result = self._allocator.allocate(waiting.claim, now_ns, reserved)
            if isinstance(result, Hold):
                return waiting, result
            waiting.shortage = result
            if not result.own:
                reserved |= result.usable
        return None
