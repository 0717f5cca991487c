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
class _StepState:
    """The state of one step."""

    pieces: list[tuple[int, str]] = field(default_factory=list)
    size: int = 0
    cached: bool = False
    done: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    decoders: dict[int, codecs.IncrementalDecoder] = field(default_factory=dict)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


class Stream:
    """Receives the progress of all steps, and writes one step at a time. ``quiet`` writes nothing, unless
    :meth:`flush` is called."""

    def __init__(self, messages: Progress, *, quiet: bool, removes: bool) -> None:
        self._messages, self._quiet, self._removes = messages, quiet, removes
        self._steps: dict[int, _StepState] = {}
        self._buffered: list[str] = []
        self._space = KEPT

    # from the solver (server.builder.operations.interfaces.Progress)

    @property
    def clips(self) -> bool:
        """dockerd's classic builder does not limit output."""
        return False

    def started(self, step: Step, since_ns: int = 0) -> None:
        self._state(step).changed.set()

    def cached(self, step: Step) -> None:
        state = self._state(step)
        state.cached = True
        state.changed.set()

    def done(self, step: Step, error: str = "") -> None:
        state = self._state(step)
        state.done = True
        state.changed.set()

    def output(self, step: Step, stream: int, data: bytes, at_ns: int) -> None:
        state = self._state(step)
        if stream == STARTED:
            text = data.decode()
        else:
            text = state.decoders.setdefault(stream, _decoder()).decode(data)
        if not text or state.size > KEPT:
            return
        state.size += len(text)
        state.pieces.append((stream, text if state.size <= KEPT else CUT))
        state.changed.set()

    def _state(self, step: Step) -> _StepState:
        return self._steps.setdefault(id(step), _StepState())

    # to the client

    async def write(self, text: str) -> None:
        """Write a message to the stream; buffer it if the client requested only the id."""
        if not self._quiet:
            await self._messages.put({"stream": text})
        elif self._space > 0:
            self._space -= len(text)
            self._buffered.append(text if self._space > 0 else CUT)

    async def flush(self) -> None:
        """Write the buffered messages, so that the client sees why the build failed."""
        self._quiet, buffered, self._buffered = False, self._buffered, []
        for text in buffered:
            await self.write(text)

    async def step(self, number: int, total: int, text: str) -> None:
        """Write the head of a step: dockerd sends the newline in a message of its own."""
        await self.write(f"Step {number}/{total} : {text}")
        await self.write("\n")

    async def follow(self, step: Step, result: "asyncio.Task[Result]") -> None:
        """Write a step's output as it comes, until ``result`` is done. Does not raise the step's error."""
        state = self._state(step)
        container = ""
        while True:
            state.changed.clear()
            pieces, state.pieces = state.pieces, []
            state.size = 0
            for stream, text in pieces:
                if stream == STARTED:
                    container = text[:12]
                    await self.write(f" ---> Running in {container}\n")
                else:
                    await self.write(f"{RED}{text}{PLAIN}" if stream == 2 else text)
            if result.done() and not state.pieces:
                break
            if state.cached:
                await asyncio.wait([result])
                continue
            changed = asyncio.ensure_future(state.changed.wait())
            waiting: set[asyncio.Future[Any]] = {changed, result}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
        failed = result.cancelled() or result.exception() is not None
        if state.cached:
            await self.write(" ---> Using cache\n")
        elif container and not failed and self._removes:
            await self.write(f" ---> Removed intermediate container {container}\n")
