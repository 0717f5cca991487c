"""Detects the kernel's OOM killer in a container's cgroup: v1 by eventfd, v2 by ``memory.events``. With
``--oom-kill-disable`` (v1) no process is killed; the event then means that the cgroup has reached its limit."""

import os
import struct
from collections.abc import Callable, Mapping
from functools import partial

from engine.shim.loop import PRIORITY, READ, Loop, Timer

# Seconds after an event at which the count is read again, see OomWatch._look.
_DELAYS = (0.01, 0.05, 0.25, 1.0, 5.0)


class OomWatch:
    """Calls ``on_oom`` when a process of the cgroup was killed, or waits for memory because the killer is disabled.
    Does nothing without a memory cgroup.

    ``cgroups``: the container's own directories, see ``cgroups.own_directories``.
    """

    def __init__(self, loop: Loop, cgroups: Mapping[str, str], on_oom: Callable[[], None]) -> None:
        self._loop = loop
        self._on_oom = on_oom
        self._file = -1
        self._event = -1
        self._seen = 0
        self._kills = True
        self._timer: Timer | None = None
        try:
            for controller, name in (("memory", "memory.oom_control"), ("", "memory.events")):
                directory = cgroups.get(controller)
                if directory is None:
                    continue
                if os.path.exists(os.path.join(directory, name)):
                    self._watch(directory, name)
                    return
        except OSError:
            # The process has exited or its cgroup was removed: only its exit is reported.
            self.close()

    def _watch(self, directory: str, name: str) -> None:
        self._file = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._count()
        if name == "memory.events":
            # kernfs signals a changed file as an exceptional condition.
            self._loop.add(self._file, PRIORITY, self._ready)
            return
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with open(os.path.join(directory, "cgroup.event_control"), "w") as control:
            control.write(f"{self._event} {self._file}")
        self._loop.add(self._event, READ, self._ready)

    def _count(self) -> int:
        # Both files have a line "oom_kill <n>"; v1's also has "oom_kill_disable 0" or 1.
        lines = os.pread(self._file, 4096, 0).split(b"\n")
        values = {key: int(value) for key, _, value in (line.partition(b" ") for line in lines) if value}
        self._kills = not values.get(b"oom_kill_disable")
        return values.get(b"oom_kill", 0)

    def _ready(self, _events: int) -> None:
        if self._event >= 0:
            try:
                struct.unpack("Q", os.read(self._event, 8))
            except BlockingIOError:
                return
        self._look(_DELAYS)

    def check(self) -> None:
        """Reads the count now; the process's exit may be known before the event arrives."""
        self._look(None)

    def _look(self, delays: tuple[float, ...] | None) -> None:
        """Reads the count and reports new kills. ``delays``: None without an event; else when to read again.

        v1 signals the eventfd before the killer has chosen a process and counted it (mm/memcontrol-v1.c,
        ``mem_cgroup_oom``), so the count may not have changed yet.
        """
        if self._file < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            count = self._count()
        except OSError:
            # The cgroup was removed, which v1 signals too.
            self.close()
            return
        if count > self._seen or (delays is not None and not self._kills):
            self._seen = count
            self._on_oom()
        elif delays:
            self._timer = self._loop.call_later(delays[0], partial(self._look, delays[1:]))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for fd in (self._event, self._file):
            if fd >= 0:
                self._loop.remove(fd)
                os.close(fd)
        self._event = self._file = -1
