"""The interface of log drivers, and the lines that they write.

Lines are split as dockerd splits them: at newlines, and a line beyond 16 KiB in pieces whose records lack the newline.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

PIECE = 16 << 10

#: ``size`` of the current file and by stream ``rest``, the unfinished lines kept back (hex). Empty: there is no log
#: here.
Mark = dict[str, object]


class LogDriver(Protocol):
    """Receives the output of a container besides its clients."""

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Logs bytes read from ``stdout`` or ``stderr`` at ``now_ns``; keeps back an unfinished line."""

    def finish(self, stream: str, now_ns: int) -> None:
        """``stream`` has ended: writes its unfinished line."""

    def close(self) -> None: ...

    def mark(self) -> Mark:
        """The current end of the log."""

    def open_reader(self) -> int:
        """A new descriptor of the current file; -1: there is none."""

    @property
    def lagging(self) -> bool:
        """Whether the container must wait for the log."""

    def set_on_writable(self, callback: Callable[[], None]) -> None:
        """Sets the function that is called when the container need not wait any more."""


class Pending:
    """The number of logs that still have data to send: the shim doesn't exit before they are done."""

    count = 0


class NeverLagging:
    """Writes to a file don't block (page cache), so ``mode=non-blocking`` changes nothing."""

    @property
    def lagging(self) -> bool:
        return False

    def set_on_writable(self, callback: Callable[[], None]) -> None:
        pass


class NoLog(NeverLagging):
    """Discards all output."""

    def mark(self) -> Mark:
        return {}

    def open_reader(self) -> int:
        return -1

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        pass

    def finish(self, stream: str, now_ns: int) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Splits a stream into whole lines and 16 KiB pieces."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yields (bytes, whole): ``whole`` is a run of lines each with its newline, else one piece without.

        A line's last part is "whole" also if earlier pieces were yielded before, as in dockerd.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, begin, size = 0, 0, len(data)
        while size - position >= PIECE:
            newline = data.rfind(b"\n", position, position + PIECE)
            if newline >= 0:
                position = newline + 1
                continue
            if position > begin:
                yield data[begin:position], True
            end = _character_boundary(data, position, position + PIECE)
            yield data[position:end], False
            begin = position = end
        newline = data.rfind(b"\n", position)
        if newline >= 0:
            position = newline + 1
        if position > begin:
            yield data[begin:position], True
        self._rest = data[position:]

    @property
    def unfinished(self) -> bytes:
        """The bytes that wait for their newline."""
        return self._rest

    def rest(self) -> bytes:
        """The bytes without a newline at the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest


def _character_boundary(data: bytes, begin: int, end: int) -> int:
    """``end``, or up to three bytes earlier if it would split a UTF-8 character."""
    for back in range(1, 4):
        byte = data[end - back]
        if byte < 0x80:
            return end
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end if length <= back else end - back
    return end
