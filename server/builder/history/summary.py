"""The build history as plain values, for clients that don't speak BuildKit's protocol."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from engine.common.errors import not_found
from server.builder.history.history import CANCELED, History
from server.builder.session.pb import control_pb2 as pb


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """``name``: the image, else the directory or the target of the build, "" if it has none. ``state``: running,
    completed, failed or cancelled. Times: ns since the epoch; 0: it has not ended."""

    ref: str
    name: str
    state: str
    began_ns: int
    ended_ns: int
    steps: int
    cached: int
    error: str


async def summaries(history: History) -> Sequence[BuildSummary]:
    """The newest build first."""
    return [_summary(record) for record in await history.records()]


def _summary(record: pb.BuildHistoryRecord) -> BuildSummary:
    ended = record.HasField("CompletedAt")
    state = "completed" if ended else "running"
    if ended and record.HasField("error"):
        state = "cancelled" if record.error.message == CANCELED else "failed"
    return BuildSummary(
        ref=record.Ref,
        name=_name(record),
        state=state,
        began_ns=record.CreatedAt.ToNanoseconds(),
        ended_ns=record.CompletedAt.ToNanoseconds() if ended else 0,
        steps=record.numTotalSteps,
        cached=record.numCachedSteps,
        error=record.error.message,
    )


def _name(record: pb.BuildHistoryRecord) -> str:
    names = (exporter.Attrs.get("name", "") for exporter in record.Exporters)
    attributes = record.FrontendAttrs
    candidates = (*names, attributes.get("vcs:source", ""), attributes.get("context", ""), attributes.get("target", ""))
    return next((name for name in candidates if name), "")


async def text_log(history: History, ref: str) -> AsyncIterator[str]:
    """The output of a completed build as ``docker build --progress=plain`` shows it, in short: the name of each step
    before its first output, and what it has written.

    :raises WharfError: NOT_FOUND: there is no such completed build.
    """
    await history.load()
    if not history.contains(ref):
        raise not_found(f"no such build {ref}")
    names: dict[str, str] = {}
    last = ""
    async for message in history.status(ref):
        lines: list[str] = []
        for vertex in message.vertexes:
            if vertex.digest not in names:
                names[vertex.digest] = vertex.name
            if vertex.error:
                lines.append(f"{vertex.name}: ERROR: {vertex.error}\n")
            elif vertex.cached:
                lines.append(f"{vertex.name}: CACHED\n")
            elif vertex.HasField("completed"):
                seconds = (vertex.completed.ToNanoseconds() - vertex.started.ToNanoseconds()) / 1e9
                lines.append(f"{vertex.name}: DONE {seconds:.1f} s\n")
        for entry in message.logs:
            if entry.vertex != last:
                lines.append(f"\n{names.get(entry.vertex, '')}\n")
                last = entry.vertex
            lines.append(entry.msg.decode(errors="replace"))
        if lines:
            yield "".join(lines)
