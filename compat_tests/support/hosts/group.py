"""Several hosts on one segment: started and ended together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from compat_tests.support.host import resources
from compat_tests.support.hosts.host import DockerdHost, Host, WharfHost
from compat_tests.support.hosts.machine import Machine
from compat_tests.support.hosts.segment import Segment, between

Result = TypeVar("Result")


class Hosts(Sequence[Host]):
    """The hosts in the order of their numbers: ``host1`` is the first."""

    def __init__(self, segment: Segment, hosts: Sequence[Host]) -> None:
        self._segment = segment
        self._hosts = list(hosts)

    def __getitem__(self, index: int) -> Host:  # type: ignore[override]  # slices are not needed
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def enter(self) -> list[str]:
        """See ``Segment.enter``."""
        return self._segment.enter

    def each(self, work: Callable[[Host], Result], among: Sequence[Host] | None = None) -> list[Result]:
        """Do the work on all of these hosts at once; None: on all."""
        chosen = self._hosts if among is None else among
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:
            return list(pool.map(work, chosen))

    def cut(self, one: Host, other: Host) -> None:
        """Cut the link between two hosts."""
        self._segment.cut([(one.name, other.name)])

    def partition(self, minority: Collection[Host]) -> None:
        """Cut the links between these hosts and all others."""
        names = {host.name for host in minority}
        self._segment.cut(between(names, {host.name for host in self} - names))

    def heal(self) -> None:
        """Restore all links."""
        self._segment.heal()

    def stop(self) -> None:
        """Stop all engines gracefully; containers continue."""
        self.each(lambda host: host.daemon.stop())

    def start(self) -> None:
        self.each(lambda host: host.start())

    def power_off(self) -> None:
        self.each(lambda host: host.power_off())

    def power_on(self) -> None:
        self.each(lambda host: host.power_on())


@contextlib.contextmanager
def hosts(count: int, *args: str, kind: str = "wharf", disks: Mapping[int, str] | None = None) -> Iterator[Hosts]:
    """Run so many hosts with busybox:latest loaded; fail if a clean stop of an engine leaves something behind.

    ``args``: additional flags of the engines, ``kind``: "wharf" or "dockerd", ``disks``: the sizes of the file systems
    for the data roots of some hosts, by index.
    """
    segment = Segment()
    started: list[Host] = []
    left: list[str] = []
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: left.extend(segment.close()))
        segment.open()
        places = []
        for index in range(count):
            allocated = resources.allocate(f"host{index + 1}")
            port = segment.port(allocated.name)
            mark, disk = allocated.footprint.mark, (disks or {}).get(index, "")
            machine = Machine(allocated.name, mark, allocated.root, port, disk=disk)
            undo.callback(resources.clear, allocated.root)
            undo.callback(machine.close)
            places.append((allocated, machine))

        def boot(place: tuple[resources.EngineResources, Machine]) -> Host:
            allocated, machine = place
            machine.boot()
            host = (WharfHost if kind == "wharf" else DockerdHost)(allocated, machine, args)
            started.append(host)
            host.start()
            host.load_busybox()
            return host

        def close(host: Host) -> None:
            left.extend(f"{host.name}: {line}" for line in host.close())

        pool = undo.enter_context(ThreadPoolExecutor(count))
        undo.callback(lambda: list(pool.map(close, started)))
        try:
            yield Hosts(segment, list(pool.map(boot, places)))
        except BaseException as error:
            # The report of a failed setup comes when the hosts are gone.
            for host in started:
                error.add_note(f"log of {host.name}:\n{host.daemon.tail(2000)}")
            raise
    assert not left, "hosts left behind:\n" + "\n".join(left)
