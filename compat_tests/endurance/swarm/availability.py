"""Clients that ask all the time, and how long they were not served."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from http.client import HTTPException
from itertools import pairwise

from compat_tests.support.hosts.group import Hosts
from compat_tests.support.hosts.host import Host

#: Seconds between two requests to a host, and until a request without an answer counts as failed.
_PAUSE, _PATIENCE = 0.25, 2.0

# Prints the address of each server that has answered, with the time. The end of its input ends it.
_PROGRAM = """
import asyncio, sys, time

port, pause, patience = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])

async def ask(host):
    while True:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
                    if b" 200 " in await reader.readline():
                        print(time.monotonic(), host, flush=True)
                finally:
                    writer.close()
        except (OSError, asyncio.TimeoutError):
            pass
        await asyncio.sleep(begun + pause - time.monotonic())

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stop.set)
    asking = [asyncio.create_task(ask(host)) for host in sys.argv[4:]]
    await stop.wait()
    for task in asking:
        task.cancel()

asyncio.run(main())
"""


class Served:
    """When requests to each host were answered, in seconds of ``time.monotonic``."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def note(self, name: str, at: float) -> None:
        with self._lock:
            self._times.setdefault(name, []).append(at)

    def gap(self, names: Collection[str], begun: float, ended: float) -> float:
        """The longest time in this interval in which none of these hosts answered."""
        with self._lock:
            times = sorted(at for name in names for at in self._times.get(name, ()) if begun <= at <= ended)
        moments = [begun, *times, ended]
        return max(later - earlier for earlier, later in pairwise(moments))

    def forget(self, before: float) -> None:
        with self._lock:
            for name, times in self._times.items():
                self._times[name] = [at for at in times if at >= before]


@contextlib.contextmanager
def asked(hosts: Hosts, port: int) -> Iterator[Served]:
    """Ask a published port through each host during the block, as a client beside the hosts."""
    served = Served()
    names = {host.address: host.name for host in hosts}
    argv = [*hosts.enter, sys.executable, "-c", _PROGRAM, str(port), str(_PAUSE), str(_PATIENCE), *names]

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            at, address = line.split()
            served.note(names[address], float(at))

    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=read, args=(process,))
        reader.start()
        try:
            yield served
        finally:
            assert process.stdin is not None
            process.stdin.close()
            reader.join()


@contextlib.contextmanager
def written(managers: Sequence[Host]) -> Iterator[Served]:
    """Write to each manager during the block: each has a config of its own, whose labels change."""
    served, stop = Served(), threading.Event()

    def write(host: Host) -> None:
        name, number = f"written-{host.name}", 0
        while not stop.wait(_PAUSE):
            number += 1
            with contextlib.suppress(OSError, HTTPException, KeyError, ValueError):
                if _change(host, name, number):
                    served.note(host.name, time.monotonic())

    threads = [threading.Thread(target=write, args=(host,)) for host in managers]
    for thread in threads:
        thread.start()
    try:
        yield served
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _change(host: Host, name: str, number: int) -> bool:
    """Returns whether the manager has accepted a write."""
    with contextlib.closing(host.api.connection(timeout=_PATIENCE)) as connection:
        shown = host.api.request("GET", f"/configs/{name}", on=connection)
        if shown.status == 404:
            created = {"Name": name, "Data": "eA=="}
            return host.api.request("POST", "/configs/create", data=created, on=connection).status == 201
        if shown.status != 200:
            return False
        config = shown.json()
        spec = {**config["Spec"], "Labels": {"number": str(number)}}
        version = {"version": config["Version"]["Index"]}
        path = f"/configs/{config['ID']}/update"
        return host.api.request("POST", path, query=version, data=spec, on=connection).status == 200
