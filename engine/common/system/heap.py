"""The C heap while megabytes pass through: pieces of a transfer are reused, not given to the kernel and fetched again.

glibc takes every block of 128 KiB or more from the kernel and gives it back when it is freed; each MiB then costs 256
page faults, which is more than copying it. Once there was a transfer, such blocks come from the heap, which is trimmed
when the daemon is at rest (``engine.common.system.idle``), so that it is as small as before.
"""

import ctypes
import threading

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_LARGE = 32 << 20  # the largest that mallopt(3) takes for a threshold on 64-bit systems
_lock = threading.Lock()
_running = 0
_prepared = False


def use_single_arena() -> None:
    """To be called before there are threads; forks inherit it. By default glibc gives each its own heap, whose top it
    keeps however large it once was: after a few builds and pulls that was 35 MiB in wharfd."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, 1)


def trim() -> None:
    """Gives the kernel what is free, as after the imports of a start. Milliseconds."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _prepare() -> None:
    """From now on blocks below ``_LARGE`` come from the heap. Another C library than glibc is left alone."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        libc.mallopt(_TOP_PAD, 4 << 20)


def transfer_running() -> bool:
    """Whether a transfer runs: it is no time to trim."""
    return _running > 0


class Transfer:
    """One piece of work that moves many large pieces: from ``begin`` to ``end``, which may be called again."""

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
