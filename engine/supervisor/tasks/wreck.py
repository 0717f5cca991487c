"""What a shim that was killed, or a supervisor that died in the middle of a create, leaves: the container's processes,
the runtime's memory of it, its cgroups.
"""

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import time
from collections.abc import Mapping

from engine.errors import WharfError
from engine.runtime.oci import Runtime
from engine.shim import kernel
from engine.shim.process import STOPPED
from engine.supervisor.tasks.bundle import Bundle
from engine.system import cgroups, timeouts
from engine.system.run import run

log = logging.getLogger(__name__)

#: The exit status of a process whose end nobody could see: as if killed, as containerd tells it.
UNSEEN = 128 + signal.SIGKILL


async def clear(id: str, bundle: Bundle, runtime: Runtime) -> None:
    """Ends the container ``id`` whose shim is gone, and makes runtime and kernel forget it. Never raises."""
    try:
        state = bundle.shim_state()
        init = state.get("init")
        if isinstance(init, dict):
            await asyncio.to_thread(_kill, int(init.get("pid", 0)), int(str(state.get("init_started", 0))))
        await forget(id, runtime)
        await asyncio.to_thread(_clear_cgroups, bundle)
    except (WharfError, OSError, ValueError) as error:
        log.error("container=%s what its shim left can't be cleared: %s", id, error)


def end(bundle: Bundle) -> tuple[int, int]:
    """How the first process of a container whose shim is gone ended, and when (ns); written down for those who ask
    later. Blocks."""
    state = bundle.shim_state()
    init = state.get("init")
    init = dict(init) if isinstance(init, dict) else {}
    if init.get("status") != STOPPED:
        init |= {"status": STOPPED, "exit_status": UNSEEN, "exited_at_ns": time.time_ns()}
        with contextlib.suppress(OSError):
            bundle.write_shim_state({**state, "init": init})
    return int(init["exit_status"]), int(init["exited_at_ns"])


async def forget(id: str, runtime: Runtime) -> None:
    """The runtime kills what is left of a container and forgets it; one that it doesn't know is no error."""
    if not await asyncio.to_thread(os.path.isdir, os.path.join(runtime.root, id)):
        return
    done = await run(runtime.delete(id, force=True), deadline=timeouts.seconds("runtime.delete"))
    if done.status:
        log.warning("container=%s %s", id, done.stderr.decode(errors="replace").strip())


def kill_shim(pid: int, bundle: Bundle) -> None:
    """Kills a shim that doesn't answer; nothing else that may have got its number."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            if os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(bundle.path):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _kill(pid: int, started: int) -> None:
    """Kills the process that was once seen as (pid, start time), and waits for its end."""
    if not pid or not started:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after the descriptor was taken: it can't be another's any more.
        if not kernel.alive(pid, started):
            return
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(timeouts.seconds("runtime.kill") * 1000)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _clear_cgroups(bundle: Bundle) -> None:
    """A runtime that was killed in the middle knows nothing of the cgroups that it has made."""
    path = _cgroups_path(bundle)
    if not path.startswith("/") or os.path.normpath(path) == "/":
        return
    for directory in set(cgroups.container_directories(cgroups.host_cgroups(), path).values()):
        with contextlib.suppress(OSError):
            if os.path.isdir(directory):
                for pid in kernel.cgroup_pids(directory):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            cgroups.remove_tree(directory)


def _cgroups_path(bundle: Bundle) -> str:
    with contextlib.suppress(OSError, ValueError), open(os.path.join(bundle.path, "config.json")) as file:
        spec = json.load(file)
        linux = spec.get("linux") if isinstance(spec, Mapping) else None
        if isinstance(linux, Mapping):
            return str(linux.get("cgroupsPath") or "")
    return ""
