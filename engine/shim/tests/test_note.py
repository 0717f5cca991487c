"""Lines of the engine in a container's log."""

import pytest

from engine.shim.logs.driver import Mark, NoLog
from engine.shim.loop import Loop
from engine.shim.stdio.streams import Streams


class Log(NoLog):
    """A log whose streams have this unfinished line."""

    def __init__(self, rest: str) -> None:
        self.written: list[tuple[str, bytes]] = []
        self._rest = rest

    def mark(self) -> Mark:
        return {"rest": {"stderr": self._rest, "stdout": self._rest}}

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        self.written.append((stream, data))


@pytest.mark.parametrize(
    ("terminal", "rest", "written"),
    [
        (False, "", ("stderr", b"a line\n")),
        (False, "6f", ("stderr", b"\na line\n")),
        (True, "", ("stdout", b"a line\r\n")),
        (True, "6f", ("stdout", b"\r\na line\r\n")),
    ],
)
def test_a_note_is_a_line_of_its_own(terminal: bool, rest: str, written: tuple[str, bytes]) -> None:
    log = Log(rest)

    def fail(error: BaseException) -> None:
        raise error

    streams = Streams(
        Loop(fail), log, terminal=terminal, stdin_once=False, spill_directory="/", on_finished=lambda: None
    )
    streams.note("a line")
    assert log.written == [written]
    streams.close_sources()
    streams.note("too late")
    assert log.written == [written]
