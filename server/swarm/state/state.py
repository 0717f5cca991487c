"""The state of the swarm: the store's objects in memory, kept equal to it by a watch; and transactions of objects."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.common.errors import Kind, WharfError, invalid
from server.swarm.model import codec
from server.swarm.model.objects import Cluster, Object
from server.swarm.state.tables import Tables
from server.swarm.store.interface import (
    MAX_VALUE,
    Change,
    Commit,
    Compacted,
    Condition,
    ConditionFailed,
    Entry,
    Store,
    Write,
)

log = logging.getLogger(__name__)

#: How often a transaction is repeated whose objects another commit has changed.
_ATTEMPTS = 20
#: Seconds before a store that can't be followed is asked again.
_PAUSE = 1.0
_MARKS = frozenset((codec.REFERRED, codec.RELEASED))


@dataclass(frozen=True, slots=True)
class Put:
    """Stores an object. Its version is the condition: 0 requires that neither the id nor the name exists. ``lease``:
    the object is deleted when this lease of the store ends; 0: none."""

    item: Object
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes an object, on the condition that it has still this version."""

    item: Object


@dataclass(frozen=True, slots=True)
class Require:
    """Requires that an object still has this version, without a change of it."""

    item: Object


@dataclass(frozen=True, slots=True)
class Refer:
    """The transaction stores ids of secrets, configs or networks, which the tables have: requires that none of these
    objects was deleted meanwhile."""


Operation = Put | Delete | Require | Refer
#: Computes the operations from the tables as they are now. It may be called several times.
Build = Callable[[], Sequence[Operation]]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one object. ``old`` None: it is new; ``new`` None: it was removed."""

    old: Object | None
    new: Object | None

    @property
    def item(self) -> Object:
        item = self.new or self.old
        assert item is not None
        return item


class Conflict(Exception):
    """Another commit changed an object first, or took the name."""


class Subscription:
    """The changes since the subscription, in order: ``next`` waits for some and returns all that there are."""

    def __init__(self, state: "State") -> None:
        self._state = state
        self._events: list[Event] = []
        self._ready = asyncio.Event()

    def add(self, events: Sequence[Event]) -> None:
        self._events += events
        self._ready.set()

    async def next(self) -> list[Event]:
        await self._ready.wait()
        return self.take()

    async def wait(self, seconds: float | None) -> None:
        """Waits for changes, for so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ready.wait()

    def take(self) -> list[Event]:
        """All changes that there are now: the tables have these, and no others."""
        self._ready.clear()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        self._state.unsubscribe(self)


class State:
    """Call ``open``; then read ``tables`` on the event loop, without an ``await`` between reads that belong together.

    The tables contain each commit of this process when the commit returns, and those of others as the watch reports
    them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tables = Tables()
        self._revision = 0
        self._advanced = asyncio.Condition()
        self._subscriptions: list[Subscription] = []
        # Objects of own commits by key, which need not be decoded when the watch reports the same bytes.
        self._own: dict[str, tuple[bytes, Object]] = {}
        # The revisions of ``codec.REFERRED`` and ``codec.RELEASED``.
        self._marks: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Reads everything and starts to follow the store.

        :raises WharfError: the store's.
        """
        entries, revision = await self.store.range(codec.ROOT)
        self._load(entries, revision)
        self._task = asyncio.create_task(self._follow(), name="swarm-state")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def revision(self) -> int:
        """The revision of the store that the tables have."""
        return self._revision

    @property
    def cluster(self) -> Cluster:
        return next(iter(self.tables.cluster))

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    # changes

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Executes the operations in one transaction. On return the tables have the result.

        :raises Conflict: nothing was changed.
        :raises WharfError: INVALID_ARGUMENT: an object is larger than ``MAX_VALUE``.
        :raises WharfError: the store's.
        """
        if not operations:
            return
        conditions: dict[str, Condition] = {}
        writes: dict[str, Write] = {}
        for operation in operations:
            self._add(operation, conditions, writes)
        try:
            revision = await self.store.commit(list(conditions.values()), list(writes.values()))
        except BaseException as error:
            for key in writes:
                self._own.pop(key, None)
            if isinstance(error, ConditionFailed):
                raise Conflict from None
            raise
        await self._reach(revision)

    def _add(self, operation: Operation, conditions: dict[str, Condition], writes: dict[str, Write]) -> None:
        def require(key: str, revision: int) -> None:
            conditions[key] = Condition(key, revision)

        def write(key: str, value: bytes | None, lease: int = 0) -> None:
            writes[key] = Write(key, value, lease)

        if isinstance(operation, Refer):
            require(codec.RELEASED, self._marks.get(codec.RELEASED, 0))
            write(codec.REFERRED, b"")
            return
        item = operation.item
        key = codec.key_of(type(item), item.id)
        require(key, item.version)
        if isinstance(operation, Delete):
            for each in (key, *codec.reservations(item)):
                write(each, None)
            if isinstance(item, codec.REFERENCED):
                require(codec.REFERRED, self._marks.get(codec.REFERRED, 0))
                write(codec.RELEASED, b"")
        elif isinstance(operation, Put):
            value = codec.encode(item)
            if len(value) > MAX_VALUE:
                raise invalid("rpc error: code = Unknown desc = raft: raft message is too large and can't be sent")
            write(key, value, operation.lease)
            self._own[key] = value, item
            if not item.version:
                for name in codec.reservations(item):
                    require(name, 0)
                    write(name, item.id.encode())

    async def transact(self, build: Build) -> Sequence[Operation]:
        """Commits what ``build`` returns, and calls it again while another commit comes first. Returns the operations
        that were committed; [] if there was nothing to do. ``build`` may raise to give up.

        :raises WharfError: the store's; UNAVAILABLE: too many commits came first.
        """
        for _ in range(_ATTEMPTS):
            operations = build()
            try:
                await self.commit(operations)
            except Conflict:
                # The tables may not have the other commit yet.
                await self.synchronize()
                continue
            return operations
        raise WharfError(Kind.UNAVAILABLE, "update out of sequence")

    async def synchronize(self) -> None:
        """Waits until the tables have every commit that was finished before the call, also those of other nodes."""
        _, revision = await self.store.range(codec.ROOT + "cluster/")
        await self._reach(revision)

    async def _reach(self, revision: int) -> None:
        async with self._advanced:
            await self._advanced.wait_for(lambda: self._revision >= revision)

    # the copy

    async def _follow(self) -> None:
        while True:
            try:
                async for commit in self.store.watch(codec.ROOT, self._revision):
                    await self._apply(commit)
            except Compacted:
                log.info("the swarm's store has dropped changes that were not read yet: reading all of it")
                entries, revision = await self.store.range(codec.ROOT)
                self._load(entries, revision)
                async with self._advanced:
                    self._advanced.notify_all()
            except WharfError as error:
                log.warning("the swarm's store can't be followed: %s", error.message)
                await asyncio.sleep(_PAUSE)
            else:
                return  # the store was closed

    async def _apply(self, commit: Commit) -> None:
        events = [event for change in commit.changes if (event := self._change(change, commit.revision)) is not None]
        self._revision = commit.revision
        for subscription in self._subscriptions:
            subscription.add(events)
        async with self._advanced:
            self._advanced.notify_all()

    def _change(self, change: Change, revision: int) -> Event | None:
        found = codec.split(change.key)
        if found is None:
            if change.key in _MARKS:
                self._marks[change.key] = revision
            return None
        cls, id = found
        table = self.tables.of(cls)
        if change.value is None:
            old = table.pop(id)
            return None if old is None else Event(old, None)
        own = self._own.pop(change.key, None)
        if own is not None and own[0] == change.value:
            new = replace(own[1], version=revision)
        else:
            new = codec.decode(cls, change.value, revision)
        return Event(table.put(new), new)

    def _load(self, entries: Sequence[Entry], revision: int) -> None:
        """Makes the tables equal to ``entries`` and reports the differences."""
        events = []
        present: dict[type[Object], set[str]] = {cls: set() for cls in codec.KINDS.values()}
        for entry in entries:
            found = codec.split(entry.key)
            if found is None:
                if entry.key in _MARKS:
                    self._marks[entry.key] = entry.revision
                continue
            cls, id = found
            present[cls].add(id)
            table = self.tables.of(cls)
            former = table.find(id)
            if former is None or former.version != entry.revision:
                new = codec.decode(cls, entry.value, entry.revision)
                events.append(Event(table.put(new), new))
        for cls, ids in present.items():
            table = self.tables.of(cls)
            events += [Event(table.pop(item.id), None) for item in table if item.id not in ids]
        self._revision = revision
        for subscription in self._subscriptions:
            subscription.add(events)
