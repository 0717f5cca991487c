"""Named deadlines: every wait for another process has one of these, so that each can be found and tuned.

``WHARF_TIMEOUTS="task.start=60,shim.connect=5"`` in the environment overrides single ones, ``*=8`` makes all others
that much longer (a slow machine).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.common.errors import Kind, WharfError

#: Seconds. Generous: they end a hang, they do not shape normal work.
_SECONDS: dict[str, float] = {
    "engine.connect": 30.0,  # wharfd → supervisor's socket answers
    "engine.call": 60.0,  # a gRPC call that does no long work
    "supervisor.start": 30.0,
    "supervisor.stop": 20.0,
    "supervisor.lock": 30.0,  # an earlier supervisor that ends gives its root back
    "shim.start": 20.0,  # zygote forks, the shim answers
    "shim.call": 30.0,
    "shim.connect": 10.0,
    "shim.exit": 10.0,  # a shim told to leave
    "shim.create": 75.0,  # longer than runtime.create, at which the shim kills the runtime and answers
    "shim.start-process": 75.0,  # longer than runtime.start and runtime.exec, likewise
    "runtime.checkpoint": 600.0,
    "runtime.probe": 20.0,
    "task.create": 90.0,
    "task.start": 90.0,
    "task.exec": 60.0,
    "task.delete": 60.0,
    "task.kill": 30.0,
    "stdio.handover": 20.0,  # a client's socket reaches the shim
    "stdio.drain": 10.0,  # output left in the pipes when grandchildren hold them open
    "snapshot.prepare": 120.0,
    "snapshot.remove": 300.0,
    "diff.apply": 3600.0,
    "network.wire": 30.0,
    "network.proxy": 15.0,
    "network.claim": 2.0,  # an engine that is ending gives up its bridge
    "firewalld.call": 30.0,  # it may be loading its rules
    "volume.plugin": 60.0,
    "volume.ask": 15.0,  # a plugin tells which volumes it has: a listing waits for the slowest
    "event.deliver": 10.0,
    "tls.handshake": 30.0,  # a client of the API: from its connection to the end of the handshake
    "http.head": 60.0,  # a client of the API: from a request's first byte to its blank line
    "http.linger": 10.0,  # the rest of a body that nobody waits for
    "http.rejected": 2.0,  # what a client sends after a request that was rejected
    "program.run": 60.0,  # a tool of the host: modprobe, ps, mount.nfs …
    "shutdown": 30.0,
}


def _overrides(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        found[name] = float(value)
    return found


_changed = _overrides(os.environ.get("WHARF_TIMEOUTS", ""))
_FACTOR = _changed.pop("*", 1.0)
_SECONDS.update({name: seconds * _FACTOR for name, seconds in _SECONDS.items()} | _changed)


def define(name: str, seconds: float) -> float:
    """Adds a deadline at import of the module that needs it (an override wins) and returns its value."""
    return _SECONDS.setdefault(name, seconds * _FACTOR)


def seconds(name: str) -> float:
    """The deadline's length. KeyError for a name that nobody defined: a deadline is never made up."""
    return _SECONDS[name]


@asynccontextmanager
async def limit(name: str) -> AsyncIterator[None]:
    """Ends the block with DEADLINE_EXCEEDED when the named deadline has passed."""
    try:
        async with asyncio.timeout(seconds(name)) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise WharfError(Kind.DEADLINE_EXCEEDED, f"{name}: not done after {seconds(name):g} s") from None
