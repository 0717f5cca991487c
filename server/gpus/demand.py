"""What a container requests of GPUs: its device requests (``--gpus``, ``--device vendor.com/gpu=name``, the
reservations of Compose), read with the CDI specifications of this host."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from api_models.resources import DeviceRequest
from engine.common.errors import invalid
from server.containers.run import gpus
from server.containers.spec.cdi import Registry
from server.gpus.catalog import is_all, is_gpu, kind_of

#: Every GPU that the role allows.
ALL = -1


@dataclass(frozen=True, slots=True)
class Demand:
    """``names``: CDI devices by name. ``counts``: the number of GPUs by kind, or ``ALL``. ``others``: CDI devices that
    are no GPUs, which are not allocated."""

    names: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.counts)


def read(requests: Iterable[DeviceRequest], registry: Registry) -> Demand:
    """The sum of the requests of one container.

    :raises WharfError: INTERNAL: no driver of this host supports a request by CDI; INVALID_ARGUMENT: both a count and
        ids are set, or a request for CDI devices has a count or options.
    """
    names: list[str] = []
    counts: dict[str, int] = {}
    others: list[str] = []

    def add(kind: str, count: int) -> None:
        known = counts.get(kind, 0)
        counts[kind] = ALL if ALL in (known, count) else known + count

    for request in requests:
        kind = ""
        if request.driver != "cdi":
            kind = gpus.cdi_kind(registry, request)
        elif request.count:
            raise invalid("unexpected count in CDI device request")
        elif request.options:
            raise invalid("unexpected options in CDI device request")
        for device in request.device_ids or ():
            name = device if "=" in device else f"{kind}={device}"
            if not is_gpu(name):
                others.append(name)
            elif is_all(name):
                add(kind_of(name), ALL)
            else:
                names.append(name)
        if request.count:
            add(kind, ALL if request.count < 0 else request.count)
    return Demand(tuple(dict.fromkeys(names)), counts, tuple(others))
