"""What clients see of GPUs and of the queue."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from server.access.owners import user_of
from server.gpus.allocator import Allocator, Hold
from server.gpus.queue import Waiting


@dataclass(frozen=True, slots=True)
class Holder:
    """``user``: "" for administrators. ``container``: its id; "": it does not exist for the caller. ``since_ns``: since
    the epoch."""

    user: str
    container: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class GpuRow:
    """``name`` and ``names``: see ``Gpu``. ``shared``: a role names it in ``shared_gpus``."""

    name: str
    names: tuple[str, ...]
    partition: bool
    shared: bool
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A container that waits. ``gpus``: those that it names; ``counts``: how many more, by kind. ``reason``: what it
    waits for."""

    place: int
    user: str
    container: str
    since_ns: int
    gpus: tuple[str, ...]
    counts: Mapping[str, int]
    reason: str


def gpu_rows(allocator: Allocator, shared: Iterable[str], visible: Callable[[str], bool]) -> list[GpuRow]:
    """All GPUs in natural order. ``shared``: CDI names. ``visible``: whether a container exists for the caller."""
    catalog = allocator.catalog
    several = {gpu for name in shared for gpu in catalog.covered(name)}

    def holder(hold: Hold) -> Holder:
        id = hold.container if visible(hold.container) else ""
        return Holder(user_of(hold.owner), id, hold.since_ns)

    return [
        GpuRow(gpu.name, gpu.names, gpu.partition, gpu.name in several, tuple(map(holder, allocator.holders(gpu.name))))
        for gpu in catalog.gpus.values()
    ]


def queue_rows(order: Iterable[Waiting], visible: Callable[[str], bool]) -> list[QueueRow]:
    return [
        QueueRow(
            place,
            waiting.claim.user,
            waiting.claim.container if visible(waiting.claim.container) else "",
            waiting.since_ns,
            waiting.claim.names,
            waiting.claim.counts,
            waiting.shortage.message,
        )
        for place, waiting in enumerate(order, 1)
    ]
