"""The build history: what is kept, for how long, over restarts, and what is asked of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from engine.buildkit.pb import control_pb2 as pb
from engine.errors import WharfError
from server.services.build.buildkit.history import CANCELED, KEPT, KEPT_NS, History
from server.services.build.buildkit.job import Job
from server.services.build.buildkit.records import STATUS_BYTES, Records, packed, unpacked
from server.services.build.lease import BuildLease


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[History]:
    history = History(Records(str(path / "history.db")))
    await history.load()
    yield history
    await history.close()


def build(history: History, ref: str, *, error: str = "", internal: bool = False, age_ns: int = 0) -> None:
    job = Job(ref, "", pb.SolveRequest(Internal=internal), cast(BuildLease, None))
    history.started(job)
    job.send(pb.StatusResponse(logs=[pb.VertexLog(vertex="v", msg=f"says {ref}".encode())]))
    job.error = error
    job.end()
    job.completed_ns -= age_ns
    history.completed(job)


async def refs(history: History, **wanted: object) -> list[str]:
    request = pb.BuildHistoryRequest(EarlyExit=True, **wanted)  # type: ignore[arg-type]
    return [event.record.Ref async for event in history.listen(request)]


def test_the_newest_and_what_is_pinned_are_kept_over_a_restart(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as history:
            for number in range(KEPT + 3):
                build(history, f"r{number}")
                if not number:
                    history.update(pb.UpdateBuildHistoryRequest(Ref="r0", Pinned=True))
            build(history, "probe", internal=True)
            build(history, "old", age_ns=KEPT_NS + 1)
            found = await refs(history)
            assert len(found) == KEPT + 1
            assert found[:2] == ["r0", "r3"]
        async with opened(tmp_path) as history:
            assert await refs(history) == found
            assert [item.logs[0].msg async for item in history.status("r7")] == [b"says r7"]
            assert history.knows("r7")
            assert not history.knows("r1")
            history.update(pb.UpdateBuildHistoryRequest(Ref="r7", Delete=True))
            history.update(pb.UpdateBuildHistoryRequest(Ref="r0", Pinned=False))
        async with opened(tmp_path) as history:
            assert "r7" not in await refs(history)
            # no longer pinned, it is the oldest of 50
            assert len(await refs(history)) == KEPT
            with pytest.raises(WharfError):
                history.update(pb.UpdateBuildHistoryRequest(Ref="none"))

    asyncio.run(work())


def test_what_is_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as history:
            build(history, "good")
            build(history, "bad", error="exit code: 3")
            build(history, "left", error=CANCELED)
            history.started(Job("now", "", pb.SolveRequest(), cast(BuildLease, None)))
            assert await refs(history, Filter=["status=error"]) == ["bad"]
            assert await refs(history, Filter=["status=canceled"]) == ["left"]
            assert await refs(history, Filter=["status!=running", "ref!=bad"]) == ["good", "left"]
            assert await refs(history, ActiveOnly=True) == ["now"]
            assert await refs(history, Ref="good") == ["good"]
            assert await refs(history, Limit=2) == ["left", "now"]
            with pytest.raises(WharfError, match="not supported"):
                await refs(history, Filter=["color=red"])

    asyncio.run(work())


def test_long_output_is_cut_in_the_middle() -> None:
    def said(number: int) -> pb.StatusResponse:
        return pb.StatusResponse(logs=[pb.VertexLog(vertex="v", msg=b"%8d" % number + b"x" * 10_000)])

    end = pb.StatusResponse(vertexes=[pb.Vertex(digest="v", name="end")])
    kept = list(unpacked(packed([*map(said, range(1000)), end])))
    assert kept[-1] == end
    assert kept[0] == said(0)
    assert kept[-2] == said(999)
    assert sum(message.ByteSize() for message in kept) <= STATUS_BYTES
    assert list(unpacked(packed([end]))) == [end]
