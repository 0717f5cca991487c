"""The C heap during large transfers: the pieces' memory is reused instead of returned to the kernel and fetched again.

glibc maps every block of 128 KiB or more and unmaps it when it is freed; each MiB then costs 256 page faults, which
take longer than copying it. After the first transfer such blocks come from the heap, which
``engine.common.system.idle`` trims when the daemon is idle.
"""

import ctypes
import threading

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_LARGE = 32 << 20  # the largest threshold that mallopt(3) accepts on 64-bit systems
_lock = threading.Lock()
_running = 0
_prepared = False


def use_single_arena() -> None:
    """Makes all threads use one malloc arena. Call it before threads start; forks inherit it. By default each thread
    has an arena that never shrinks at its top: after a few builds and pulls these were 35 MiB in wharfd."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, 1)


def trim() -> None:
    """Returns free heap pages to the kernel, for example after the imports of a start. Takes milliseconds."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _prepare() -> None:
    """Serves blocks below ``_LARGE`` from the heap from now on. Does nothing with a C library other than glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        libc.mallopt(_TOP_PAD, 4 << 20)


def transfer_running() -> bool:
    """Whether a transfer is running: the heap should not be trimmed."""
    return _running > 0


class Transfer:
    """One operation that moves many large pieces, from ``begin`` to ``end``, which may be called again."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open = False

    def begin(self) -> None:
        global _running, _prepared
        if not self._open:
            self._open = True
            with _lock:
                if not _prepared:
                    _prepared = True
                    _prepare()
                _running += 1

    def end(self) -> None:
        global _running
        if self._open:
            self._open = False
            with _lock:
                _running -= 1

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()
