"""The contract of the swarm's stores. The terms are etcd's (https://etcd.io/docs/v3.5/learning/data_model/).

The *revision* of the store counts its commits. The revision of an entry is that of the commit that wrote it last; 0
stands for a key that does not exist.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

#: The most writes of one transaction, and the most conditions: etcd's --max-txn-ops is 128 by default. There may be
#: more conditions than writes: a leader requires also that it is the leader.
MAX_OPERATIONS, MAX_CONDITIONS = 120, 128
#: The most bytes of one value. etcd accepts requests of 1.5 MiB; a config may have 1000 KiB, sealed 1334 KiB.
MAX_VALUE = 1400 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value, and the revision of the commit that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Condition:
    """The transaction requires that ``key`` still has this revision."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    """Puts ``value`` under ``key``, or deletes the key if the value is None; deleting a missing key is no error.
    ``lease``: the entry is deleted when this lease ends; 0: none."""

    key: str
    value: bytes | None
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit did to one key: ``value`` None: it was deleted."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Commit:
    """All changes of one commit below a watched prefix."""

    revision: int
    changes: Sequence[Change]


def check_bounds(conditions: Sequence[Condition], writes: Sequence[Write]) -> None:
    """:raises ValueError: see ``Store.commit``."""
    if len(writes) > MAX_OPERATIONS or len(conditions) > MAX_CONDITIONS:
        raise ValueError(f"a transaction has more than {MAX_OPERATIONS} writes, or {MAX_CONDITIONS} conditions")
    if any(write.value is not None and len(write.value) > MAX_VALUE for write in writes):
        raise ValueError(f"a value has more than {MAX_VALUE} bytes")
    if len({write.key for write in writes}) != len(writes):
        raise ValueError("a transaction writes a key twice")


class ConditionFailed(Exception):
    """A transaction was not executed: another commit changed a key of its conditions."""


class Compacted(Exception):
    """The store no longer has the changes after the wanted revision: the caller reads the range again."""


class LeaseEnded(Exception):
    """The lease does not exist, or its time is over."""


class Store(Protocol):
    """A store. Its methods are called on the event loop.

    All methods raise ``WharfError``: UNAVAILABLE: the store can't be reached or has no quorum; RESOURCE_EXHAUSTED: it
    is full. After a failed commit with UNAVAILABLE the caller doesn't know whether it was executed; conditions make a
    repetition safe.
    """

    async def range(self, prefix: str) -> tuple[Sequence[Entry], int]:
        """All entries whose keys begin with ``prefix``, in the order of the keys, and the revision of the store at
        which they were read. It sees every commit that was finished before the call."""

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """Executes all writes in one transaction, if all conditions hold; returns its revision. It is durable on
        return. No key is written twice in one transaction.

        :raises ConditionFailed: nothing was written.
        :raises ValueError: more than ``MAX_OPERATIONS`` writes or ``MAX_CONDITIONS``, or a value above ``MAX_VALUE``.
        """

    def watch(self, prefix: str, after: int) -> AsyncIterator[Commit]:
        """The commits with changes below ``prefix`` whose revision is greater than ``after``, in their order, without
        gaps, until the store is closed. Closing the iterator (``aclose``) ends the watch.

        A commit without changes shows how far the watch is: it comes to every revision that ``range`` and ``commit``
        return.

        :raises Compacted: from the iterator.
        """

    async def grant(self, seconds: int) -> int:
        """Makes a lease that ends after ``seconds`` without ``keep_alive``; returns its id, which is not 0."""

    async def keep_alive(self, lease: int) -> None:
        """Renews a lease for its whole time.

        :raises LeaseEnded:
        """

    async def revoke(self, lease: int) -> None:
        """Ends a lease and deletes its entries, in one commit. Ending a missing lease is no error."""

    async def close(self) -> None:
        """Ends the watches. Leases go on until their time is over."""
