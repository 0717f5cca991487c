"""Named deadlines: every wait for another process has one, so that each can be found and tuned.

``WHARF_TIMEOUTS="task.start=60,shim.connect=5"`` in the environment overrides single ones; ``*=8`` multiplies all
others (a slow machine).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.common.errors import Kind, WharfError

#: Seconds. Generous: they end a hang and don't affect normal work.
_SECONDS: dict[str, float] = {
    "engine.connect": 30.0,  # wharfd: until the supervisor's socket answers
    "engine.call": 60.0,  # a gRPC call without long work
    "supervisor.start": 30.0,
    "supervisor.stop": 20.0,
    "supervisor.lock": 30.0,  # an ending supervisor releases its root
    "shim.start": 20.0,  # the zygote forks, the shim answers
    "shim.call": 30.0,
    "shim.connect": 10.0,
    "shim.exit": 10.0,  # a shim that was asked to exit
    "shim.create": 75.0,  # longer than runtime.create, after which the shim kills the runtime and answers
    "shim.start-process": 75.0,  # longer than runtime.start and runtime.exec, likewise
    "runtime.checkpoint": 600.0,
    "runtime.probe": 20.0,
    "task.create": 90.0,
    "task.start": 90.0,
    "task.exec": 60.0,
    "task.delete": 60.0,
    "task.kill": 30.0,
    "stdio.handover": 20.0,  # passing a client's socket to the shim
    "stdio.drain": 10.0,  # output left in the pipes while grandchildren keep them open
    "snapshot.prepare": 120.0,
    "snapshot.remove": 300.0,
    "diff.apply": 3600.0,
    "network.wire": 30.0,
    "network.proxy": 15.0,
    "network.claim": 2.0,  # an ending engine releases its bridge
    "firewalld.call": 30.0,  # it may be loading its rules
    "plugin.call": 60.0,
    "network.plugin": 30.0,  # a call of a network or IPAM plugin
    "network.plugin-start": 20.0,  # plugins that start at the same time as the daemon
    "network.replay": 5.0,  # the daemon's start waits for IPAM plugins
    "volume.ask": 15.0,  # a plugin lists its volumes: a listing waits for the slowest plugin
    "event.deliver": 10.0,
    "tls.handshake": 30.0,  # an API client: from its connection to the end of the handshake
    "http.head": 60.0,  # an API client: from a request's first byte to its blank line
    "http.linger": 10.0,  # the unread rest of a request body
    "http.rejected": 2.0,  # bytes that a client sends after a rejected request
    "program.run": 60.0,  # a program of the host: modprobe, ps, mount.nfs …
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
    """Defines a deadline when the module that needs it is imported (an override wins) and returns its value."""
    return _SECONDS.setdefault(name, seconds * _FACTOR)


def seconds(name: str) -> float:
    """The deadline's length. KeyError for an undefined name."""
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
