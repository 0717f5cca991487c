"""One build of a client: its status messages, its results and its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.common.timeline import Timeline
from server.builder.classic.image import Documents
from server.builder.jobs.failure import error_from_status
from server.builder.lease import BuildLease
from server.builder.operations.lifetime import Lifetime
from server.builder.plan.steps import Layer, Result
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.pb import gateway_pb2
from server.builder.solver.solve import Solver

ARRIVE = timeouts.define("build.arrive", 30.0)
"""A client may request the status of a build shortly before it requests the build."""

KEPT = 20_000
"""The most messages kept for clients that watch from the start."""


@dataclass(frozen=True, slots=True)
class SolvedTarget:
    """A solved target: its image's documents and the chain of its files. ``platform``: ``os/arch[/variant]``."""

    id: str
    documents: Documents
    platform: str
    chain: tuple[Result, ...] = ()
    """The results that make up the image, its base first."""
    others: tuple[tuple[Result, ...], ...] = ()
    """The results of its source stages."""
    base_layers: int = 0
    bases: tuple[tuple[str, str], ...] = ()
    """Names and digests of the images used."""
    epoch_ns: int | None = None
    dockerfile: str = "Dockerfile"
    networked: bool = True
    """Whether a step had network access."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.chain[-1].layers if self.chain else ()


@dataclass(slots=True)
class Job:
    """``ref``: the client's name of the build."""

    ref: str
    session: str
    request: pb.SolveRequest
    lease: BuildLease
    timeline: Timeline
    """Work for the build in a task of its own enters it."""
    created_ns: int = field(default_factory=time.time_ns)
    completed_ns: int = 0
    messages: list[pb.StatusResponse] = field(default_factory=list)
    dropped: int = 0
    ended: bool = False
    made: dict[str, SolvedTarget] = field(default_factory=dict)
    """Results that the client may refer to, by id."""
    inputs: dict[str, SolvedTarget] = field(default_factory=dict)
    """Results of other builds that are inputs of this one, by the client's names."""
    solvers: list[Solver] = field(default_factory=list)
    lifetime: Lifetime = field(default_factory=Lifetime)
    """The lifetime of the lease and of connections to registries."""
    outcome: "asyncio.Future[gateway_pb2.Result]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The result that the client's part of the build returned."""
    options: dict[str, str] = field(default_factory=dict)
    """The options of the front end's request."""
    fetched: dict[str, str] = field(default_factory=dict)
    """Contexts and sources of ``ADD`` by URL (without a repository's subdirectory): the digest of a file, the commit of
    a repository."""
    local: set[str] = field(default_factory=set)
    """The client's directories that were read."""
    results: Sequence[SolvedTarget] = ()
    """The outcome of the whole build."""
    error: str = ""
    failure: bytes = b""
    """The error as sent to the client, a ``google.rpc.Status``."""
    response: dict[str, str] = field(default_factory=dict)
    _changed_event: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: pb.StatusResponse) -> None:
        """Add a copy of the message to the status; the caller may reuse its message."""
        copy = pb.StatusResponse()
        copy.CopyFrom(message)
        if len(self.messages) >= KEPT:
            self.messages.pop(0)
            self.dropped += 1
        self.messages.append(copy)
        self._wake()

    def _wake(self) -> None:
        self._changed_event.set()
        self._changed_event = asyncio.Event()

    def end(self) -> None:
        """End the status: no more messages follow."""
        self.ended = True
        self.completed_ns = time.time_ns()
        self._wake()

    async def watch(self) -> AsyncIterator[pb.StatusResponse]:
        """Yield the status messages from the beginning to the end."""
        at, messages = 0, self.messages
        while True:
            news = self._changed_event
            at = max(at, self.dropped)
            while at < self.dropped + len(messages):
                yield messages[at - self.dropped]
                at += 1
            if self.ended:
                return
            if news is self._changed_event:
                await news.wait()

    def add_result(self, made: SolvedTarget) -> None:
        """Store a result for the client."""
        self.made[made.id] = made

    def result(self, id: str) -> SolvedTarget:
        """Return a result by the id that the client received."""
        try:
            return self.made[id]
        except KeyError:
            raise not_found(f"no such ref: {id}") from None

    def set_outcome(self, request: gateway_pb2.ReturnRequest) -> None:
        """Record the result or error that the client returned."""
        if self.outcome.done():
            return
        if request.HasField("error") and request.error.code:
            self.outcome.set_exception(error_from_status(request.error))
        else:
            self.outcome.set_result(request.result)

    async def close(self) -> None:
        """Cancel what still runs, except steps that other builds have joined."""
        for solver in self.solvers:
            await solver.close()
        await self.lifetime.release()
        if not self.outcome.done():
            self.outcome.cancel()
        elif not self.outcome.cancelled():
            self.outcome.exception()


class Jobs:
    """The running builds, by ref. ``ended``: whether a build has ended; ``recent``: the newest ended builds."""

    def __init__(
        self,
        ended: Callable[[str], bool] = lambda ref: False,
        recent: Callable[[], "list[Job]"] = list,
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended, self._recent = ended, recent
        self._changed = asyncio.Condition()

    async def add(self, job: Job) -> None:
        """Add a build. Raises CONFLICT for a ref in use."""
        async with self._changed:
            if job.ref in self._jobs:
                raise WharfError(Kind.CONFLICT, f"job ID {job.ref} exists")
            self._jobs[job.ref] = job
            self._changed.notify_all()

    def remove(self, job: Job) -> None:
        """Remove an ended build; current watchers still see its end."""
        self._jobs.pop(job.ref, None)

    async def get(self, ref: str) -> Job | None:
        """Return the build of a ref; wait for it a moment. ``None`` for an ended build: one that fails immediately may
        end before its client requests the status. Raises NOT_FOUND with BuildKit's sentence.
        """
        try:
            async with asyncio.timeout(ARRIVE), self._changed:
                await self._changed.wait_for(lambda: ref in self._jobs or self._ended(ref))
        except TimeoutError:
            raise not_found(f"no such job {ref}") from None
        return self._jobs.get(ref)

    def result(self, id: str) -> SolvedTarget:
        """Return a result of any running or recently ended build. Raises INVALID_ARGUMENT for an unknown one."""
        for job in (*self._jobs.values(), *self._recent()):
            if id and id in job.made:
                return job.made[id]
        raise invalid("an input of the build refers to an unknown result")

    def all(self) -> list[Job]:
        """Return the running builds."""
        return list(self._jobs.values())
