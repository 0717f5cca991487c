"""The output of a step shared by several builds: complete for each, within BuildKit's limits."""

import asyncio
import time

import pytest

from server.builder.solver.output import (
    MAX_BYTES,
    MAX_BYTES_PER_SECOND,
    SIZE_CLIPPED,
    SPEED_CLIPPED,
    STARTED,
    TAIL_BYTES,
    StepOutput,
)
from server.builder.solver.shared_tasks import SharedTasks


class Build:
    """A listener that records its calls."""

    def __init__(self, *, clips: bool = True) -> None:
        self.clips = clips
        self.since: list[int] = []
        self.seen: list[tuple[int, bytes, int]] = []

    def started(self, since_ns: int) -> None:
        self.since.append(since_ns)

    def output(self, stream: int, data: bytes, at_ns: int) -> None:
        self.seen.append((stream, data, at_ns))

    def text(self, stream: int) -> bytes:
        return b"".join(data for number, data, _ in self.seen if number == stream)


def test_joining_listener_gets_complete_output() -> None:
    output, first, second = StepOutput(), Build(), Build(clips=False)
    output.join(first)
    output.write(STARTED, b"id")
    output.write(1, b"one ")
    output.write(2, b"error ")
    output.join(second)
    assert second.seen == first.seen
    output.leave(first)
    output.write(1, b"two")
    output.end()
    assert (first.text(1), second.text(1), second.text(2)) == (b"one ", b"one two", b"error ")
    assert first.since == second.since == [output.started_ns]


def test_the_limits_are_buildkits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("server.builder.solver.output.time.monotonic", lambda: now)
    output, shown, whole = StepOutput(), Build(), Build(clips=False)
    output.join(shown)
    output.join(whole)
    now += 0.5
    output.write(1, b"a" * MAX_BYTES_PER_SECOND + b"b")
    assert shown.text(1) == b"a" * MAX_BYTES_PER_SECOND + SPEED_CLIPPED
    now += 1  # the next second has a new allowance
    output.write(1, b"c")
    assert shown.text(1).endswith(SPEED_CLIPPED + b"c")
    now += 1000
    for _ in range(40):
        output.write(1, b"d" * 100_000)
    assert shown.text(1).endswith(b"d" + SIZE_CLIPPED)
    assert shown.text(1).count(b"clipped") == 2
    output.write(2, b"another stream")
    assert shown.text(2) == b"another stream"
    late, later = Build(), Build(clips=False)
    output.join(late)
    output.join(later)
    assert late.text(1) == shown.text(1)
    output.write(1, b"the end")
    output.end()
    for build in (shown, late):
        assert build.text(1).endswith(b"the end")
        assert len(build.text(1)) == MAX_BYTES + len(SPEED_CLIPPED + SIZE_CLIPPED) + TAIL_BYTES - 1
    assert whole.text(1) == b"a" * MAX_BYTES_PER_SECOND + b"bc" + b"d" * 4_000_000 + b"the end"
    assert later.text(1).endswith(b"d" * 1000 + b"the end")


def test_leaving_listener_does_not_end_output() -> None:
    async def check() -> None:
        shared: SharedTasks[str] = SharedTasks()
        outputs: list[StepOutput] = []
        over = asyncio.Event()

        async def work(output: StepOutput) -> str:
            outputs.append(output)
            output.write(1, b"begun ")
            await over.wait()
            output.write(1, b"ended")
            return "result"

        first, second = Build(), Build()
        one = asyncio.create_task(shared.run("key", work, first))
        await asyncio.sleep(0.01)
        two = asyncio.create_task(shared.run("key", work, second))
        await asyncio.sleep(0.01)
        one.cancel()
        await asyncio.wait([one])
        over.set()
        assert await two == "result"
        assert len(outputs) == 1
        assert (first.text(1), second.text(1)) == (b"begun ", b"begun ended")

    asyncio.run(check())
