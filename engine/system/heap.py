"""The C heap while megabytes pass through: pieces of a transfer are reused, not given to the kernel and fetched again.

glibc takes every block of 128 KiB or more from the kernel and gives it back when it is freed; each MiB then costs 256
page faults, which is more than copying it. While a transfer runs, such blocks come from the heap; after the last one
the heap is trimmed, so that an idle daemon is as small as before.
"""

import ctypes
import threading

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_LARGE = 32 << 20  # the largest that mallopt(3) takes for a threshold on 64-bit systems
_REST = 1.0  # seconds
_lock = threading.Lock()
_running = 0
_waiting = False
_libc: ctypes.CDLL | None = None


def one_for_all_threads() -> None:
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
    """Once: from now on blocks below ``_LARGE`` come from the heap. Another C library than glibc is left alone."""
    global _libc
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        libc.mallopt(_TOP_PAD, 4 << 20)
    _libc = libc


def busy() -> bool:
    """Whether a transfer runs: the heap is trimmed after it."""
    return _running > 0


class Transfer:
    """One piece of work that moves many large pieces: from ``begin`` to ``end``, which may be called again."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open = False

    def begin(self) -> None:
        global _running
        if not self._open:
            self._open = True
            with _lock:
                if _libc is None:
                    _prepare()
                _running += 1

    def end(self) -> None:
        global _running, _waiting
        if not self._open:
            return
        self._open = False
        with _lock:
            _running -= 1
            if _running or _waiting or not hasattr(_libc, "malloc_trim"):
                return
            _waiting = True
        # Not at once: the next layer often follows, and its pieces would be fetched again.
        timer = threading.Timer(_REST, _trim)
        timer.daemon = True
        timer.start()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()


def _trim() -> None:
    global _waiting
    with _lock:
        _waiting = False
        busy = _running > 0
    if not busy and _libc is not None:
        _libc.malloc_trim(0)  # milliseconds, without the interpreter's lock
