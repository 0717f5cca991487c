"""HTTP requests at a steady rate, each on a connection of its own, from a process in any network namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from compat_tests.support.patience import FACTOR

#: A script of busybox: answers with $VERSION after a pause, so that requests are under way at each moment, and ends at
#: SIGTERM at once.
SERVER = """
mkdir -p /w/cgi-bin
printf '#!/bin/sh\nusleep 300000\nprintf "Content-Type: text/plain\\r\\n\\r\\n$VERSION"\n' > /w/cgi-bin/index.cgi
chmod +x /w/cgi-bin/index.cgi
exec httpd -f -p 80 -h /w
"""

# The end of its input ends it. A request that waits for a place among those under way is late, not lost.
_PROGRAM = """
import asyncio, collections, json, sys, time

host, port, rate, deadline = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
answers, failures = collections.Counter(), []

async def ask(places, begun):
    at, step, writer = time.monotonic() - begun, "connect", None
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_connection(host, port)
            step = "answer"
            writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
            head, _, body = (await reader.read()).partition(b"\\r\\n\\r\\n")
        if b" 200 " not in head.partition(b"\\r\\n")[0]:
            raise OSError(f"answered {head[:60]!r}")
        answers[body.decode().strip()] += 1
    except (OSError, asyncio.TimeoutError) as error:
        failures.append(f"{at:.2f} s: {step}: {type(error).__name__} {error}")
    finally:
        if writer is not None:
            writer.close()
        places.release()

async def main():
    places, stop, begun = asyncio.Semaphore(200), asyncio.Event(), time.monotonic()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, stop.set)
    async with asyncio.TaskGroup() as group:
        number = 0
        while not stop.is_set():
            await places.acquire()
            group.create_task(ask(places, begun))
            number += 1
            await asyncio.sleep(begun + number / rate - time.monotonic())
    print(json.dumps({"answers": answers, "failures": failures}))

asyncio.run(main())
"""


@dataclass(slots=True)
class Load:
    """``answers``: how many requests were answered with each body; filled at the end of the block."""

    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@contextmanager
def load(host: str, port: int, *, rate: float, enter: Sequence[str] = ()) -> Iterator[Load]:
    """Ask the server so many times a second during the block. ``enter``: the start of a command that runs a program in
    other namespaces. A request fails if it is not answered with 200 within 10 seconds."""
    found = Load()
    argv = [*enter, sys.executable, "-c", _PROGRAM, host, str(port), str(rate), str(10 * FACTOR)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield found
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, f"the load ended with {process.returncode}"
    result = json.loads(output)
    found.answers, found.failures = result["answers"], result["failures"]
