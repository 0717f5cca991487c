"""Timelines: phases in tasks and parts, results, what observers get, and what a record costs."""

import asyncio
import struct
import sys
from collections.abc import Iterator

import pytest

from engine.common import limits, timeline
from engine.common.errors import Kind, WharfError
from engine.common.timeline import Part, Record, Timeline, current, latest


class Observer:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def ended(self, record: Record) -> None:
        self.records.append(record)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Record]]:
    observer = Observer()
    timeline.observers.append(observer)
    yield observer.records
    timeline.observers.remove(observer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test changes it."""
    now = [1000.0]
    monkeypatch.setattr(timeline, "_clock", lambda: now[0])
    return now


def test_phases_follow_each_other(clock: list[float], seen: list[Record]) -> None:
    made = Timeline("start", "id", "alice")
    clock[0] += 2
    made.mark("network")
    clock[0] += timeline.SHORTEST_WAIT / 2
    made.waited("lock", "nothing")
    clock[0] += 1
    made.waited("queue", "GPUs")
    clock[0] += 0.5
    record = made.done()
    found = [(each.name, each.begin, each.end, each.waits_for) for each in record.phases]
    assert found == [("network", 0, 2, ""), ("queue", 2, pytest.approx(3.0005), "GPUs")]
    assert (record.what, record.subject, record.owner, record.result) == ("start", "id", "alice", "done")
    assert record.seconds == pytest.approx(3.5005)
    assert seen == [record]


def test_tasks_add_parts_to_the_timeline_that_they_run_within(clock: list[float], seen: list[Record]) -> None:
    async def step() -> None:
        with current().phase("RUN make"):
            inner = current()
            clock[0] += 1
            inner.mark("process")

    async def other(made: Timeline) -> None:
        with made.entered():
            current().mark("elsewhere")

    async def build() -> None:
        made = Timeline("build")
        outside = asyncio.create_task(other(made))  # made before the block: it is not within it by itself
        with made:
            await asyncio.create_task(step())
            await outside
        current().mark("after")

    asyncio.run(build())
    (record,) = seen
    assert {(each.name, each.within) for each in record.phases} == {
        ("process", "RUN make"),
        ("RUN make", ""),
        ("elsewhere", ""),
    }


def test_without_a_timeline_nothing_is_recorded(seen: list[Record]) -> None:
    part = current()
    with part.phase("a") as inner:
        inner.mark("b")
        part.waited("c", "d")
    assert isinstance(inner, Part)
    assert not seen


@pytest.mark.parametrize(
    ("error", "result", "text"),
    [
        (WharfError(Kind.INTERNAL, "no " + "x" * 1000), "failed", ("no " + "x" * 1000)[:256]),
        (asyncio.CancelledError(), "cancelled", ""),
        (KeyError(), "failed", "KeyError"),
    ],
)
def test_results(seen: list[Record], error: BaseException, result: str, text: str) -> None:
    with pytest.raises(type(error)), Timeline("pull", "busybox"):
        raise error
    assert (seen[0].result, seen[0].error) == (result, text)


def test_the_number_of_phases_is_bounded() -> None:
    made = Timeline("build")
    for _ in range(limits.TIMELINE_PHASES + 10):
        made.mark("step")
    assert len(made.done().phases) == limits.TIMELINE_PHASES


def test_a_container_needs_less_than_a_kibibyte() -> None:
    names = {
        "create": ("checks", "networks", "snapshot", "mounts", "save"),
        "start": ("network", "mounts", "spec", "container", "bundle", "fork", "create", "task", "start", "save"),
        "exit": ("output, network", "save"),
    }
    records: tuple[Record, ...] = ()
    for _ in range(3):  # the last one of each operation stays
        for what, phases in names.items():
            made = Timeline(what, "id")
            for name in phases:
                made.mark(name)
            records = latest(records, made.done())
    assert [record.what for record in records] == list(names)
    size = sys.getsizeof(records)
    for record in records:
        own = (record, record.began_ns, record.seconds, record._times)
        size += sum(map(sys.getsizeof, own)) + struct.calcsize("PP")  # with the collector's header
        # Shared with the records of all other containers.
        again = Timeline(record.what, "other")
        for phase in record.phases:
            again.mark(phase.name)
        assert again.done()._labels is record._labels
    assert size < 1024


def test_a_server_returns_phases_to_its_caller(clock: list[float], seen: list[Record]) -> None:
    answer: list[str] = []
    token = timeline.returned_phases.set(answer)
    made = Timeline("task")
    clock[0] += 1
    made.mark("fork")
    made.add("runtime", clock[0] + 0.25, clock[0] + 0.5, within="create")
    made.return_phases(within="task")
    timeline.returned_phases.reset(token)
    made.return_phases(within="no caller")
    clock[0] = 1000.0
    with Timeline("start"):
        current().add_returned(",".join(answer))
    (record,) = seen
    found = [(each.name, each.begin, each.end, each.within) for each in record.phases]
    assert found == [("fork", 0, 1, "task"), ("runtime", 1.25, 1.5, "create")]


@pytest.mark.parametrize("text", ["", ",", "a b", "a 1 2", "a -1 2 x", "a 1 2 x y", "a ² ² x", "a 1e9 2 x", "\xff"])
def test_malformed_phases_are_left_out(seen: list[Record], text: str) -> None:
    with Timeline("start"):
        current().add_returned(text)
        current().add_returned(f"a {'9' * 400} 1 x")
        current().add_returned(f"a 1 2 {'x' * 400}")
    current().add_returned("a 1 2 x")  # no timeline
    (record,) = seen
    assert record.phases == ()
