"""The interface of log drivers, and the lines that they write.

Lines are split as dockerd splits them: at newlines, and a line beyond 16 KiB in pieces whose records lack the newline.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

PIECE = 16 << 10

#: ``size`` of the file that is written, and by stream ``rest``, the unfinished lines kept back (hex). Empty: there is
#: no log here.
Mark = dict[str, object]


class LogDriver(Protocol):
    """Where the output of a container goes besides its clients."""

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Takes what was read from ``stdout`` or ``stderr`` at ``now_ns``; an unfinished line is kept back."""

    def finish(self, stream: str, now_ns: int) -> None:
        """``stream`` ended: what was kept back is written."""

    def close(self) -> None: ...

    def mark(self) -> Mark:
        """Where the log ends now."""

    def open_reader(self) -> int:
        """A new descriptor of the file that is written now; -1: there is none."""

    @property
    def lagging(self) -> bool:
        """Whether the container has to wait for the log."""

    def set_on_writable(self, callback: Callable[[], None]) -> None:
        """``callback`` is called when it need not wait any more."""


class Pending:
    """How many logs still have something to send: the shim stays for them."""

    count = 0


class NeverLagging:
    """A file takes what comes (the page cache does), so ``mode=non-blocking`` changes nothing."""

    @property
    def lagging(self) -> bool:
        return False

    def set_on_writable(self, callback: Callable[[], None]) -> None:
        pass


class NoLog(NeverLagging):
    """Keeps nothing."""

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
    """Cuts a stream into whole lines and 16 KiB pieces."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yields (bytes, whole): ``whole`` is a run of lines each with its newline, else one piece without.

        A line's last part is "whole" also when earlier pieces went out, as with dockerd.
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
        """What waits for its newline."""
        return self._rest

    def rest(self) -> bytes:
        """What no newline ended, at the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest


def _character_boundary(data: bytes, begin: int, end: int) -> int:
    """``end``, or up to three bytes earlier where it would cut a UTF-8 character in two."""
    for back in range(1, 4):
        byte = data[end - back]
        if byte < 0x80:
            return end
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end if length <= back else end - back
    return end
