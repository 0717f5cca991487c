"""Applies an archive to a directory: layers (with whiteouts), build contexts, files copied into a container.

Confinement: a dedicated thread leaves the process's shared root (``unshare(CLONE_FS)``) and chroots into the target.
The kernel then resolves every name, link and device of the archive inside that root; Python checks nothing, and a file
costs four system calls. The thread's umask is 0.

The caller's thread decompresses and hashes meanwhile; both release the GIL.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.common.errors import Kind, WharfError, internal
from engine.common.layers.compression import Compression, Read, decompressed, of_media_type
from engine.common.layers.entries import Extractor
from engine.common.layers.streams import FileStream
from engine.common.layers.target import Options, Target
from engine.common.layers.tarread import TarReader
from engine.common.system import linux

_CLONE_FS = 0x200
#: The size of the queue between the two threads: at most this many times ``compression.CHUNK`` bytes.
_QUEUE = 8
#: Bytes of a file between two calls of ``cancelled``.
_ASKED = 16 << 20


@dataclass(frozen=True, slots=True)
class Applied:
    """The extracted archive: the digest and size of its plain bytes, and its number of entries."""

    diff_id: str
    size: int
    entries: int


@dataclass(slots=True)
class _Job:
    pieces: "queue.Queue[bytes | None]" = field(default_factory=lambda: queue.Queue(_QUEUE))
    plain: FileStream | None = None  # used instead of the pieces
    error: BaseException | None = None
    broken: bool = False  # the source failed: stop without an error; the source's error is raised
    done: threading.Event = field(default_factory=threading.Event)
    entries: int = 0


class Cancelled(WharfError):
    """The caller's ``cancelled`` returned True."""

    def __init__(self) -> None:
        super().__init__(Kind.CANCELLED, "context canceled")


def apply(
    read: Read,
    target: Target,
    *,
    media_type: str = "",
    compression: Compression | None = None,
    diff_id: str = "",
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Applied:
    """Extracts the archive that ``read`` returns into the target. Blocks.

    ``diff_id``: the known digest of an uncompressed layer, which saves the hashing. ``progress`` gets the number of
    plain bytes so far, ``cancelled`` is called once per MiB.

    :raises WharfError: INVALID_ARGUMENT for an invalid archive or one that leaves its root; RESOURCE_EXHAUSTED
        when the disk is full; CANCELLED.
    """
    kind = compression if compression is not None else of_media_type(media_type)
    job = _Job()
    thread = threading.Thread(target=_run, args=(job, target, options or Options()), name="extract", daemon=True)
    thread.start()
    digest = None if diff_id else hashlib.sha256()
    size = 0
    try:
        for piece in decompressed(read, kind=kind):
            if digest is not None:
                digest.update(piece)
            size += len(piece)
            if not _put(job, piece):
                break
            if progress is not None:
                progress(size)
            if cancelled is not None and cancelled():
                raise Cancelled
    except BaseException:
        job.broken = True
        raise
    finally:
        _put(job, None)
        thread.join()
    if job.error is not None:
        raise job.error
    return Applied(diff_id or f"sha256:{digest.hexdigest() if digest else ''}", size, job.entries)


def apply_file(
    fd: int, end: Callable[[int], int], target: Target, *, cancelled: Callable[[], bool] | None = None
) -> Applied:
    """Extracts a layer from a file that holds a plain tar; ``end``: see ``FileStream``. Blocks. Doesn't hash the layer:
    the writer of the file knows its digest, which is the diff id.

    :raises WharfError: see ``apply``, and the errors of ``end``.
    """

    def ends(at: int) -> int:
        if cancelled is not None and cancelled():
            raise Cancelled
        return min(end(at), at + _ASKED)

    stream = FileStream(fd, ends)
    job = _Job(plain=stream)
    thread = threading.Thread(target=_run, args=(job, target, Options()), name="extract", daemon=True)
    thread.start()
    thread.join()
    if job.error is not None:
        raise job.error
    return Applied("", stream.size, job.entries)


def _put(job: _Job, piece: bytes | None) -> bool:
    """Queues a piece; returns False if the other thread has ended."""
    while not job.done.is_set():
        try:
            job.pieces.put(piece, timeout=0.5)
        except queue.Full:
            continue
        return True
    return False


def _pieces(job: _Job) -> Iterator[bytes]:
    while (piece := job.pieces.get()) is not None:
        yield piece
    if job.broken:
        raise Cancelled


def _run(job: _Job, target: Target, options: Options) -> None:
    """The extracting thread. It is used once, as its root and umask are changed."""
    lowers: list[int] = []
    outside: list[int] = []
    try:
        for path in target.lowers:  # one at a time: close the open ones if the next fails
            lowers.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))  # noqa: PERF401
        linux.unshare(_CLONE_FS)
        outside.append(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        os.chroot(target.root)
        os.chdir("/")
        os.umask(0)
        reader = TarReader(job.plain or _pieces(job))
        job.entries = Extractor(target.whiteouts, lowers, options).run(reader)
        reader.stream.drain()
    except WharfError as error:
        job.error = error
    except OSError as error:
        job.error = internal(f"{error.filename or target.root}: {(error.strerror or str(error)).lower()}")
    except BaseException as error:
        job.error = error
    finally:
        # Thread.join returns a moment before the kernel releases the thread's root; the file system could not be
        # unmounted then. So return to the process's root first.
        for fd in outside:
            os.fchdir(fd)
            os.chroot(".")
        job.done.set()
        for fd in (*lowers, *outside):
            os.close(fd)
