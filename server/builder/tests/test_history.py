"""The build history: retention, restarts, and filters."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from engine.common.errors import WharfError
from engine.common.timeline import Timeline
from server.builder.classic.image import Documents
from server.builder.history.history import CANCELED, KEPT, KEPT_NS, History
from server.builder.history.records import STATUS_BYTES, Records, decode_log, encode_log
from server.builder.jobs.job import Job, SolvedTarget
from server.builder.lease import BuildLease
from server.builder.session.pb import control_pb2 as pb


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[History]:
    history = History(Records(str(path / "history.db")))
    await history.load()
    yield history
    await history.close()


def build(history: History, ref: str, *, error: str = "", internal: bool = False, age_ns: int = 0) -> None:
    job = Job(ref, "", pb.SolveRequest(Internal=internal), cast(BuildLease, None), Timeline("build"))
    history.started(job)
    job.send(pb.StatusResponse(logs=[pb.VertexLog(vertex="v", msg=f"says {ref}".encode())]))
    job.error = error
    job.end()
    job.completed_ns -= age_ns
    history.completed(job)


async def refs(history: History, **wanted: object) -> list[str]:
    request = pb.BuildHistoryRequest(EarlyExit=True, **wanted)  # type: ignore[arg-type]
    return [event.record.Ref async for event in history.listen(request)]


def test_newest_and_pinned_survive_a_restart(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as history:
            for number in range(KEPT + 3):
                build(history, f"r{number}")
                if not number:
                    await history.update(pb.UpdateBuildHistoryRequest(Ref="r0", Pinned=True))
            build(history, "probe", internal=True)
            build(history, "old", age_ns=KEPT_NS + 1)
            found = await refs(history)
            assert len(found) == KEPT + 1
            assert found[:2] == ["r0", "r3"]
        async with opened(tmp_path) as history:
            assert await refs(history) == found
            assert [item.logs[0].msg async for item in history.status("r7")] == [b"says r7"]
            assert history.contains("r7")
            assert not history.contains("r1")
            await history.update(pb.UpdateBuildHistoryRequest(Ref="r7", Delete=True))
            await history.update(pb.UpdateBuildHistoryRequest(Ref="r0", Pinned=False))
        async with opened(tmp_path) as history:
            assert "r7" not in await refs(history)
            # unpinned, it is the oldest of 50
            assert len(await refs(history)) == KEPT
            with pytest.raises(WharfError):
                await history.update(pb.UpdateBuildHistoryRequest(Ref="none"))

    asyncio.run(work())


def test_filters_of_requests(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as history:
            build(history, "good")
            build(history, "bad", error="exit code: 3")
            build(history, "left", error=CANCELED)
            history.started(Job("now", "", pb.SolveRequest(), cast(BuildLease, None), Timeline("build")))
            assert await refs(history, Filter=["status=error"]) == ["bad"]
            assert await refs(history, Filter=["status=canceled"]) == ["left"]
            assert await refs(history, Filter=["status!=running", "ref!=bad"]) == ["good", "left"]
            assert await refs(history, ActiveOnly=True) == ["now"]
            assert await refs(history, Ref="good") == ["good"]
            assert await refs(history, Limit=2) == ["left", "now"]
            assert await refs(history, Filter=["status!=running,ref!=bad"]) == ["good", "left"]
            assert await refs(history, Filter=["startedAt>=1h", "duration<1h"]) == ["good", "bad", "left"]
            assert await refs(history, Filter=["completedAt<=2020-02-03T04:05:06Z"]) == []
            assert await refs(history, Filter=["startedAt>2020-02-03"]) == ["good", "bad", "left", "now"]
            assert await refs(history, Filter=["startedAt<1h"]) == []
            with pytest.raises(WharfError, match="not supported"):
                await refs(history, Filter=["color=red"])
            with pytest.raises(WharfError, match="the filter duration takes no 2020-02-03"):
                await refs(history, Filter=["duration>2020-02-03"])

    asyncio.run(work())


def test_a_listener_misses_no_build_while_records_are_read(tmp_path: Path) -> None:
    """A build that starts and ends while the first listener reads the database."""

    async def work() -> None:
        async with opened(tmp_path) as history:
            build(history, "earlier")
        history = History(Records(str(tmp_path / "history.db")))
        listener = history.listen(pb.BuildHistoryRequest(ActiveOnly=True))
        first = asyncio.ensure_future(anext(listener))
        await asyncio.sleep(0)
        build(history, "short")
        event = await asyncio.wait_for(first, 30)
        assert (event.type, event.record.Ref) == (pb.BuildHistoryEventType.STARTED, "short")
        # A record that is shown is not repeated.
        assert await refs(history) == ["earlier", "short"]
        await history.close()

    asyncio.run(work())


def test_blobs_of_records_can_be_read(tmp_path: Path) -> None:
    """Blobs are read by digest, before and after a restart; they are deleted with their record."""

    async def work() -> None:
        async with opened(tmp_path) as history:
            job = Job("good", "", pb.SolveRequest(), cast(BuildLease, None), Timeline("build"))
            history.started(job)
            job.send(pb.StatusResponse(logs=[pb.VertexLog(vertex="v", msg=b"said")]))
            job.results = [
                SolvedTarget("id", cast(Documents, None), platform) for platform in ("linux/amd64", "linux/arm64")
            ]
            job.response = {"containerimage.descriptor": base64.b64encode(IMAGE.encode()).decode()}
            job.end()
            history.completed(job)
            # immediately: clients query as soon as the build has returned
            told = [event.record async for event in history.listen(pb.BuildHistoryRequest(EarlyExit=True))]
            assert await history.blob(told[0].Results["linux/arm64"].Attestations[0].digest) is not None
            bad = Job(
                "bad", "", pb.SolveRequest(), cast(BuildLease, None), Timeline("build"), error="alas", failure=b"status"
            )
            history.started(bad)
            bad.end()
            history.completed(bad)
            await history.update(pb.UpdateBuildHistoryRequest(Ref="good", Finalize=True))
        async with opened(tmp_path) as history:
            request = pb.BuildHistoryRequest(EarlyExit=True)
            records = {event.record.Ref: event.record async for event in history.listen(request)}
            good = records["good"]
            assert good.Result.Results[0].digest == good.Result.ResultDeprecated.digest == "sha256:00"
            assert sorted(good.Results) == ["linux/amd64", "linux/arm64"]
            item = good.Results["linux/arm64"].Attestations[0]
            data = await history.blob(item.digest)
            assert data is not None
            assert len(data) == item.size
            assert json.loads(data)["metadata"]["buildInvocationID"] == "good"
            assert await history.blob(records["bad"].externalError.digest) == b"status"
            log = await history.blob(good.logs.digest)
            assert log is not None
            assert [message.logs[0].msg for message in decode_log(log)] == [b"said"]
            await history.update(pb.UpdateBuildHistoryRequest(Ref="good", Delete=True))
            await history.update(pb.UpdateBuildHistoryRequest(Ref="bad", Finalize=True))
            assert await history.blob(item.digest) is None
            assert await history.blob(good.logs.digest) is None

    asyncio.run(work())


IMAGE = '{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:00", "size": 3}'


def test_long_output_is_cut_in_the_middle() -> None:
    def said(number: int) -> pb.StatusResponse:
        return pb.StatusResponse(logs=[pb.VertexLog(vertex="v", msg=b"%8d" % number + b"x" * 10_000)])

    end = pb.StatusResponse(vertexes=[pb.Vertex(digest="v", name="end")])
    kept = list(decode_log(encode_log([*map(said, range(1000)), end])))
    assert kept[-1] == end
    assert kept[0] == said(0)
    assert kept[-2] == said(999)
    assert sum(message.ByteSize() for message in kept) <= STATUS_BYTES
    assert list(decode_log(encode_log([end]))) == [end]
