"""Cleans up after a shim that was killed, or a supervisor that died during a create: the container's processes, the
runtime's state, the cgroups."""

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Mapping

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system import cgroups
from engine.common.system.run import run
from engine.shim.container.process import STOPPED
from engine.shim.kernel.cgroups import pids as pids_below
from engine.shim.kernel.processes import alive
from engine.shim.runtime.oci import Runtime
from engine.supervisor.tasks.bundle import Bundle

log = logging.getLogger(__name__)

#: The exit status of a process whose exit was not observed: as if killed, like containerd.
UNOBSERVED = 128 + signal.SIGKILL


async def clean_up(id: str, bundle: Bundle, runtime: Runtime) -> None:
    """Kills the container ``id`` whose shim has died, and removes its state in runtime and kernel. Never raises."""
    try:
        await asyncio.to_thread(_kill_processes_in, bundle.path)
        state = bundle.shim_state()
        init = state.get("init")
        if isinstance(init, dict):
            pid, started = int(init.get("pid", 0)), int(str(state.get("init_started", 0)))
            if pid and started:
                await asyncio.to_thread(_kill, pid, lambda: alive(pid, started))
        await delete(id, runtime)
    except (WharfError, OSError, ValueError) as error:
        log.error("container=%s can't clean up after its shim: %s", id, error)
    try:
        await asyncio.to_thread(_clear_cgroups, bundle)
    except OSError as error:
        log.error("container=%s can't remove its cgroups: %s", id, error)


def record_exit(bundle: Bundle) -> tuple[int, int]:
    """The exit status and time (ns) of the first process of a container whose shim has died; stored for later calls.
    Blocks."""
    state = bundle.shim_state()
    init = state.get("init")
    init = dict(init) if isinstance(init, dict) else {}
    if init.get("status") != STOPPED:
        init |= {"status": STOPPED, "exit_status": UNOBSERVED, "exited_at_ns": time.time_ns()}
        with contextlib.suppress(OSError):
            bundle.write_shim_state({**state, "init": init})
    return int(init["exit_status"]), int(init["exited_at_ns"])


async def delete(id: str, runtime: Runtime) -> None:
    """The runtime kills the rest of a container and deletes it; an unknown container is no error."""
    if not await asyncio.to_thread(os.path.isdir, os.path.join(runtime.root, id)):
        return
    done = await run(runtime.delete(id, force=True), deadline=timeouts.seconds("runtime.delete"))
    if done.status:
        log.warning("container=%s %s", id, done.stderr.decode(errors="replace").strip())


def kill_shim(pid: int, bundle: Bundle) -> None:
    """Kills a shim that doesn't answer, and no other process that may have its pid."""
    _kill(pid, lambda: _works_in(pid, os.path.realpath(bundle.path)))


def _kill_processes_in(directory: str) -> None:
    """Kills the shim's helpers: a runtime that lost its shim during a create would complete it."""
    directory = os.path.realpath(directory)
    found = True
    while found:
        found = False
        for name in os.listdir("/proc"):
            if name.isdigit() and _works_in(int(name), directory):
                found = _kill(int(name), lambda pid=int(name): _works_in(pid, directory)) or found  # type: ignore[misc]


def _works_in(pid: int, directory: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == directory
    except OSError:
        return False


def _kill(pid: int, same: Callable[[], bool]) -> bool:
    """Kills a process and waits for its exit. ``same`` tells whether ``pid`` is the expected process; it is called
    after the pidfd was opened, so that the pid can't be reused. Returns False if it is another process, or has
    exited."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not same():
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeouts.seconds("runtime.kill") * 1000))
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def _clear_cgroups(bundle: Bundle) -> None:
    """A runtime that was killed during a create doesn't know the cgroups that it has created."""
    path = cgroups.scope_path(_cgroups_path(bundle))
    if not path.startswith("/") or os.path.normpath(path) == "/":
        return
    for directory in set(cgroups.container_directories(cgroups.host_cgroups(), path).values()):
        with contextlib.suppress(OSError):
            if os.path.isdir(directory):
                for pid in pids_below(directory):
                    # Waits for its exit: a cgroup with a process can't be removed.
                    _kill(pid, lambda pid=pid, place=directory: pid in pids_below(place))  # type: ignore[misc]
            cgroups.remove_tree(directory)


def _cgroups_path(bundle: Bundle) -> str:
    with contextlib.suppress(OSError, ValueError), open(os.path.join(bundle.path, "config.json")) as file:
        spec = json.load(file)
        linux = spec.get("linux") if isinstance(spec, Mapping) else None
        if isinstance(linux, Mapping):
            return str(linux.get("cgroupsPath") or "")
    return ""
