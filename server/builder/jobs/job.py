"""One build of a client: what it shows, what it has made, how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid, not_found
from server.builder.classic.image import Documents
from server.builder.jobs.failure import returned
from server.builder.lease import BuildLease
from server.builder.operations.lifetime import Lifetime
from server.builder.plan.steps import Layer, Result
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.pb import gateway_pb2
from server.builder.solver.solve import Solver

ARRIVE = timeouts.define("build.arrive", 30.0)
"""A client asks for the status of a build, or speaks for it, a moment before it asks for the build."""

KEPT = 20_000
"""Messages of one build that are kept for those who watch from its start."""


@dataclass(frozen=True, slots=True)
class Made:
    """A solved target: its image's documents and the chain of its files. ``platform``: ``os/arch[/variant]``."""

    id: str
    documents: Documents
    platform: str
    chain: tuple[Result, ...] = ()
    """The results that the image is made of, its base first."""
    others: tuple[tuple[Result, ...], ...] = ()
    """Those of the stages that it was made with."""
    base_layers: int = 0
    bases: tuple[tuple[str, str], ...] = ()
    """Names and digests of the images that were used."""
    epoch_ns: int | None = None
    dockerfile: str = "Dockerfile"
    networked: bool = True
    """Whether a step could reach a network."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.chain[-1].layers if self.chain else ()


@dataclass(slots=True)
class Job:
    """``ref`` is the client's name of the build."""

    ref: str
    session: str
    request: pb.SolveRequest
    lease: BuildLease
    created_ns: int = field(default_factory=time.time_ns)
    completed_ns: int = 0
    messages: list[pb.StatusResponse] = field(default_factory=list)
    dropped: int = 0
    ended: bool = False
    made: dict[str, Made] = field(default_factory=dict)
    """The results that the client's half may speak of, by id."""
    inputs: dict[str, Made] = field(default_factory=dict)
    """Results of other builds that this one stands on, by the name that its client gave them."""
    solvers: list[Solver] = field(default_factory=list)
    lifetime: Lifetime = field(default_factory=Lifetime)
    """Of the lease and of connections to registries."""
    outcome: "asyncio.Future[gateway_pb2.Result]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """What the client's half returned."""
    options: dict[str, str] = field(default_factory=dict)
    """What the front end was asked."""
    fetched: dict[str, str] = field(default_factory=dict)
    """Contexts and what ``ADD`` fetched, by URL (without the folder below a repository): the digest of a file, the
    commit of a repository."""
    local: set[str] = field(default_factory=set)
    """Folders of the client that were read."""
    results: Sequence[Made] = ()
    """What the build as a whole has come to."""
    error: str = ""
    failure: bytes = b""
    """The error as its client was told it, a ``google.rpc.Status``."""
    response: dict[str, str] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: pb.StatusResponse) -> None:
        """Adds to the status; a copy, as the caller goes on changing its own."""
        copy = pb.StatusResponse()
        copy.CopyFrom(message)
        if len(self.messages) >= KEPT:
            self.messages.pop(0)
            self.dropped += 1
        self.messages.append(copy)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def end(self) -> None:
        """Nothing more will be shown."""
        self.ended = True
        self.completed_ns = time.time_ns()
        self._wake()

    async def watch(self) -> AsyncIterator[pb.StatusResponse]:
        """The status from the beginning until the end."""
        at, messages = 0, self.messages
        while True:
            news = self._news
            at = max(at, self.dropped)
            while at < self.dropped + len(messages):
                yield messages[at - self.dropped]
                at += 1
            if self.ended:
                return
            if news is self._news:
                await news.wait()

    def give(self, made: Made) -> None:
        """Keeps a result for the client's half of the build."""
        self.made[made.id] = made

    def result(self, id: str) -> Made:
        """A result by the id that the client was given."""
        try:
            return self.made[id]
        except KeyError:
            raise not_found(f"no such ref: {id}") from None

    def settle(self, request: gateway_pb2.ReturnRequest) -> None:
        """The client's half is over, with a result or an error."""
        if self.outcome.done():
            return
        if request.HasField("error") and request.error.code:
            self.outcome.set_exception(returned(request.error))
        else:
            self.outcome.set_result(request.result)

    async def close(self) -> None:
        """Ends what still runs, except steps that other builds have joined."""
        for solver in self.solvers:
            await solver.close()
        await self.lifetime.release()
        if not self.outcome.done():
            self.outcome.cancel()
        elif not self.outcome.cancelled():
            self.outcome.exception()


class Jobs:
    """The builds that run now, by ref. ``ended``: whether one is over; ``over``: the newest of those."""

    def __init__(
        self,
        ended: Callable[[str], bool] = lambda ref: False,
        over: Callable[[], "list[Job]"] = list,
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended, self._over = ended, over
        self._changed = asyncio.Condition()

    async def add(self, job: Job) -> None:
        """Raises CONFLICT for a ref that is in use."""
        async with self._changed:
            if job.ref in self._jobs:
                raise WharfError(Kind.CONFLICT, f"job ID {job.ref} exists")
            self._jobs[job.ref] = job
            self._changed.notify_all()

    def remove(self, job: Job) -> None:
        """The build is over; who watches it still sees its end."""
        self._jobs.pop(job.ref, None)

    async def get(self, ref: str) -> Job | None:
        """The build of a ref, waited for a moment; ``None`` for one that is over: a build that failed at once may be,
        before its client has asked for its status. Raises NOT_FOUND with BuildKit's sentence.
        """
        try:
            async with asyncio.timeout(ARRIVE), self._changed:
                await self._changed.wait_for(lambda: ref in self._jobs or self._ended(ref))
        except TimeoutError:
            raise not_found(f"no such job {ref}") from None
        return self._jobs.get(ref)

    def result(self, id: str) -> Made:
        """A result of any build, running or just over. Raises INVALID_ARGUMENT for one that isn't known."""
        for job in (*self._jobs.values(), *self._over()):
            if id and id in job.made:
                return job.made[id]
        raise invalid("an input of the build is no result of this engine")

    def all(self) -> list[Job]:
        """Those that run now."""
        return list(self._jobs.values())
