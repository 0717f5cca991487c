"""The output of the classic builder, in the order of the Dockerfile although stages run concurrently."""

import asyncio
import codecs
from dataclasses import dataclass, field
from typing import Any

from server.builder.plan.steps import Result, Step
from server.builder.solver.output import STARTED
from server.messages import Progress

#: The most output bytes buffered for a stage whose turn has not come; later output is cut, with a note.
KEPT = 16 << 20
RED, PLAIN = "\x1b[91m", "\x1b[0m"
CUT = "\n[output clipped]\n"


@dataclass(slots=True)
class _Seen:
    """The state of one step."""

    pieces: list[tuple[int, str]] = field(default_factory=list)
    size: int = 0
    cached: bool = False
    done: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    decoders: dict[int, codecs.IncrementalDecoder] = field(default_factory=dict)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


class Stream:
    """Receives the progress of all steps, and writes one step at a time. ``quiet`` writes nothing, unless
    :meth:`reveal` is called."""

    def __init__(self, messages: Progress, *, quiet: bool, removes: bool) -> None:
        self._messages, self._quiet, self._removes = messages, quiet, removes
        self._steps: dict[int, _Seen] = {}
        self._held: list[str] = []
        self._holds = KEPT

    # from the solver (server.builder.operations.interfaces.Progress)

    @property
    def clips(self) -> bool:
        """dockerd's classic builder does not limit output."""
        return False

    def started(self, step: Step, since_ns: int = 0) -> None:
        self._of(step).news.set()

    def cached(self, step: Step) -> None:
        seen = self._of(step)
        seen.cached = True
        seen.news.set()

    def done(self, step: Step, error: str = "") -> None:
        seen = self._of(step)
        seen.done = True
        seen.news.set()

    def output(self, step: Step, stream: int, data: bytes, at_ns: int) -> None:
        seen = self._of(step)
        if stream == STARTED:
            text = data.decode()
        else:
            text = seen.decoders.setdefault(stream, _decoder()).decode(data)
        if not text or seen.size > KEPT:
            return
        seen.size += len(text)
        seen.pieces.append((stream, text if seen.size <= KEPT else CUT))
        seen.news.set()

    def _of(self, step: Step) -> _Seen:
        return self._steps.setdefault(id(step), _Seen())

    # to the client

    async def say(self, text: str) -> None:
        """Write a message to the stream; buffer it if the client requested only the id."""
        if not self._quiet:
            await self._messages.put({"stream": text})
        elif self._holds > 0:
            self._holds -= len(text)
            self._held.append(text if self._holds > 0 else CUT)

    async def reveal(self) -> None:
        """Write the buffered messages, so that the client sees why the build failed."""
        self._quiet, held, self._held = False, self._held, []
        for text in held:
            await self.say(text)

    async def step(self, number: int, total: int, text: str) -> None:
        """Write the head of a step: dockerd sends the newline in a message of its own."""
        await self.say(f"Step {number}/{total} : {text}")
        await self.say("\n")

    async def follow(self, step: Step, result: "asyncio.Task[Result]") -> None:
        """Write a step's output as it comes, until ``result`` is done. Does not raise the step's error."""
        seen = self._of(step)
        container = ""
        while True:
            seen.news.clear()
            pieces, seen.pieces = seen.pieces, []
            seen.size = 0
            for stream, text in pieces:
                if stream == STARTED:
                    container = text[:12]
                    await self.say(f" ---> Running in {container}\n")
                else:
                    await self.say(f"{RED}{text}{PLAIN}" if stream == 2 else text)
            if result.done() and not seen.pieces:
                break
            if seen.cached:
                await asyncio.wait([result])
                continue
            news = asyncio.ensure_future(seen.news.wait())
            waiting: set[asyncio.Future[Any]] = {news, result}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        failed = result.cancelled() or result.exception() is not None
        if seen.cached:
            await self.say(" ---> Using cache\n")
        elif container and not failed and self._removes:
            await self.say(f" ---> Removed intermediate container {container}\n")
