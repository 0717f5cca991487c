"""One process that is meant, whatever process has its number later.

A pid is given again after its process was waited for, so a path with a pid in it (``/proc/<pid>/root``) may lead into
another process at the next use. A descriptor of ``/proc/<pid>`` never does: once that process is gone, what is opened
relative to it fails. The time of its start (proc_pid_stat(5)) tells whether the descriptor is of the process that is
meant.
"""

import os
from types import TracebackType
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Process:
    """A process that was seen as (``pid``, ``started``). A context manager, which closes the descriptor.

    :raises ProcessLookupError: it is gone, or its pid is another process's.
    """

    def __init__(self, pid: int, started: int) -> None:
        self._closed = True
        self._directory = _directory(pid)
        self._closed = False
        try:
            found = _start_time(self._directory, pid)
            if found != started:
                raise ProcessLookupError(3, "the process has gone; its number is another's now", f"/proc/{pid}")
        except BaseException:
            self.close()
            raise

    def open(self, name: str, flags: int) -> int:
        """A close-on-exec descriptor of a file in ``/proc/<pid>``, as ``root`` or ``ns/net``.

        :raises ProcessLookupError: the process has gone.
        """
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError as error:  # what the root link of a zombie says
            raise ProcessLookupError(3, "the process has gone", name) from error

    def read(self, name: str) -> bytes:
        """The content of a file in ``/proc/<pid>``; errors as :meth:`open`."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb", buffering=0) as file:
            return file.readall()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def start_time(pid: int) -> int:
    """When the process that has this pid now was started, in clock ticks since boot.

    :raises ProcessLookupError: there is none.
    """
    directory = _directory(pid)
    try:
        return _start_time(directory, pid)
    finally:
        os.close(directory)


def _directory(pid: int) -> int:
    try:
        return os.open(f"/proc/{pid}", _DIRECTORY)
    except FileNotFoundError:
        raise ProcessLookupError(3, "there is no such process", f"/proc/{pid}") from None


def _start_time(directory: int, pid: int) -> int:
    try:
        file = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise ProcessLookupError(3, "there is no such process", f"/proc/{pid}") from None
    try:
        stat = os.read(file, 4096)
    finally:
        os.close(file)
    # The command's name may hold blanks and parentheses; fields are counted from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
