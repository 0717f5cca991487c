"""Counters of containers' network interfaces, and names of block devices. Blocks on the kernel."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.common import limits
from server.containers.model import Container
from server.containers.run.process import process_of

#: The interfaces of a container: the name there, and the host's device, or "".
Interfaces = Callable[[Container], Sequence[tuple[str, str]]]

# Columns of /proc/net/dev: the first of eight for received data, and of those for sent data.
_RECEIVED, _SENT, _COLUMNS = 0, 8, 16


class Traffic(NamedTuple):
    """Counters of an interface, as the container sees them."""

    interface: str
    received_bytes: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


class Devices:
    """The network devices of one collection. One file of the host has the counters of all devices; it is read once."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        with open("/proc/net/dev") as file:
            self._host = _parse(file.read())
        self._names: dict[str, str] = {}

    def traffic(self, container: Container) -> list[Traffic]:
        """What went over the interfaces of a running container, without the loopback interface."""
        interfaces = self._interfaces(container)[: limits.METRICS_DEVICES]
        if any(not device for _, device in interfaces):
            return _of_process(container)
        # What the host's end sends, the container receives.
        return [
            _traffic(name, self._host[device], received=_SENT, sent=_RECEIVED)
            for name, device in interfaces
            if device in self._host
        ]

    def name(self, major: str, minor: str) -> str:
        """The path of a block device: ``/dev/sda``; "": it is unknown."""
        key = f"{major}:{minor}"
        if key not in self._names:
            try:
                self._names[key] = "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{key}"))
            except OSError:
                self._names[key] = ""
        return self._names[key]


def _of_process(container: Container) -> list[Traffic]:
    """From the container's first process; [] if it has exited."""
    try:
        with process_of(container) as process:
            found = _parse(process.read("net/dev").decode())
    except OSError:
        return []
    found.pop("lo", None)
    own = itertools.islice(found.items(), limits.METRICS_DEVICES)
    return [_traffic(name, counters, received=_RECEIVED, sent=_SENT) for name, counters in own]


def _parse(text: str) -> dict[str, list[str]]:
    """The columns of each device in the text of /proc/net/dev."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        columns = rest.split()
        if len(columns) >= _COLUMNS:
            found[name.strip()] = columns
    return found


def _traffic(name: str, columns: Sequence[str], *, received: int, sent: int) -> Traffic:
    return Traffic(name, *map(int, columns[received : received + 4]), *map(int, columns[sent : sent + 4]))
