"""What a daemon gives back once nothing is asked of it: free memory, and the code that it doesn't use at rest.

After a start, a build or a pull the heap has free pages within, which go to the kernel by ``heap.trim`` alone. And a
third of an idle daemon's resident memory is machine code of libraries (gRPC 13 MiB, the interpreter 6, pydantic 4)
that ran once, and that the kernel would unmap only when memory runs short. Here it is unmapped at once. The page cache
keeps it, so what is needed again comes back by a minor fault for 64 KiB each.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES

from engine.system import heap

# Seconds without a request. A program that asks in turn never comes to rest; a person does.
REST = 1.0

_MADV_DONTNEED = 4  # mman.h
_last = 0.0
_timer: asyncio.TimerHandle | None = None


def touched() -> None:
    """Something was asked of this process, in whose loop this is called: cheap, to be called for each request."""
    global _last, _timer
    loop = asyncio.get_running_loop()
    _last = loop.time()
    if _timer is None:
        _timer = loop.call_later(REST, _due, loop)


def _due(loop: asyncio.AbstractEventLoop) -> None:
    global _timer
    left = _last + REST - loop.time()
    if left > 0:
        _timer = loop.call_later(left, _due, loop)
        return
    _timer = None
    loop.run_in_executor(None, give_back)


def give_back() -> None:
    """Blocks for some milliseconds, most of them without the interpreter's lock."""
    if heap.busy():
        return  # who moves the data trims when it is done
    heap.trim()
    libc = ctypes.CDLL(None)
    for start, size in _code():
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


@cache
def _code() -> tuple[tuple[int, int], ...]:
    """The address and size of each mapping of code and constants that can be read from its file again at any time."""
    return tuple(_clean(_libraries()))


def _libraries() -> set[str]:
    """The interpreter and its extension modules: the files whose mappings stay until the process ends, since nothing
    unloads them. Others may be unloaded, and their addresses become another's."""
    found = {os.path.realpath(sys.executable)}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(tuple(EXTENSION_SUFFIXES)):
            found.add(os.path.realpath(file))
    return found


def _clean(files: set[str]) -> Iterator[tuple[int, int]]:
    """Mappings of ``files`` that can't be written to and never were: relocated constants are not among them."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    span: tuple[int, int] | None = None
    with open("/proc/self/smaps") as table:
        for line in table:
            words = line.split(maxsplit=5)
            if not words[0].endswith(":"):
                path = words[5].rstrip("\n") if len(words) > 5 else ""
                mine = path in files or os.path.basename(path).startswith(name)
                start, _, end = words[0].partition("-")
                span = (int(start, 16), int(end, 16) - int(start, 16)) if mine and words[1][1] == "-" else None
            elif words[0] == "Anonymous:" and span is not None and words[1] == "0":
                yield span
