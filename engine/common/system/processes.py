"""Identifies a process even after its pid was reused.

The kernel reuses a pid after the process was waited for, so a path with a pid (``/proc/<pid>/root``) may refer to
another process at its next use. A descriptor of ``/proc/<pid>`` never does: after the process has exited, opening files
relative to it fails. The start time (proc_pid_stat(5)) tells whether the descriptor refers to the expected process.
"""

import os
from types import TracebackType
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Process:
    """The process with (``pid``, ``started``). A context manager, which closes the descriptor.

    :raises ProcessLookupError: it has exited, or another process has its pid.
    """

    def __init__(self, pid: int, started: int) -> None:
        self._closed = True
        self._directory = _directory(pid)
        self._closed = False
        try:
            found = _start_time(self._directory, pid)
            if found != started:
                raise ProcessLookupError(3, "the process has exited; another process has its pid", f"/proc/{pid}")
        except BaseException:
            self.close()
            raise

    def open(self, name: str, flags: int) -> int:
        """Opens a file in ``/proc/<pid>``, such as ``root`` or ``ns/net``; returns a close-on-exec descriptor.

        :raises ProcessLookupError: the process has exited.
        """
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError as error:  # the error for the root link of a zombie
            raise ProcessLookupError(3, "the process has exited", name) from error

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
    """The start time of the process that has this pid now, in clock ticks since boot.

    :raises ProcessLookupError: no process has it.
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
    # The command's name may contain blanks and parentheses: count fields from the last parenthesis.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
