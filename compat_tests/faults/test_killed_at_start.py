"""Daemons that are killed during their start: the next start works, and containers continue."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from compat_tests.support.containers import state
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import Process
from compat_tests.support.polling import until

pytestmark = pytest.mark.slow

SUPERVISOR = "wharf-supervis"


@pytest.fixture(autouse=True)
def wharf_only(own_engine: Engine) -> None:
    if own_engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")


def holder(engine: Engine) -> Process | None:
    """Return the supervisor that holds the lock on its root, from the kernel's list of locks (no side effects)."""
    try:
        inode = os.stat(engine.resources.root / "data/containerd/lock").st_ino
    except FileNotFoundError:
        return None
    with open("/proc/locks") as file:
        pids = {int(line.split()[4]) for line in file if line.split()[5].endswith(f":{inode}")}
    return next((process for process in engine.find(SUPERVISOR) if process.pid in pids), None)


def begin(engine: Engine) -> Process:
    """Start an engine whose daemons are dead; return its supervisor as soon as it holds its lock."""
    engine.daemon.start()
    found: list[Process] = []

    def locked() -> bool:
        found[:] = [process for process in [holder(engine)] if process is not None]
        return bool(found)

    assert until(locked)
    return found[0]


def stopped(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def stop_during_start(engine: Engine) -> Process:
    """Kill wharfd while its supervisor starts; return the supervisor, stopped by SIGSTOP before it listens."""
    for _ in range(20):
        kill_both(engine)
        first = begin(engine)
        first.signal(signal.SIGSTOP)
        engine.kill("wharfd")
        # The kernel continues a process group that becomes orphaned (setpgid(2)): stop it again.
        first.signal(signal.SIGSTOP)
        assert until(partial(stopped, first.pid))
        if not listens(engine.resources.root / "run/containerd/containerd.sock"):
            return first
        first.signal(signal.SIGCONT)  # it listened before the signal: try again
    raise AssertionError("the supervisor listened each time before it was stopped")


def kill_both(engine: Engine) -> None:
    if engine.daemon.running:
        engine.kill("wharfd")
    if engine.find(SUPERVISOR):
        engine.kill(SUPERVISOR)


def test_starting_supervisor_is_reused(own_engine: Engine) -> None:
    """wharfd is killed before its supervisor serves; the next wharfd uses that supervisor."""
    engine = own_engine
    first = stop_during_start(engine)
    try:
        engine.daemon.start()
        time.sleep(1)
        assert engine.daemon.running, engine.log()
    finally:
        first.signal(signal.SIGCONT)
    engine.daemon.wait_for(engine.api)
    assert [process.pid for process in engine.find(SUPERVISOR)] == [first.pid]
    engine.docker("run", "--rm", "busybox", "true")


def test_supervisor_that_never_serves_is_replaced(own_engine: Engine) -> None:
    engine = own_engine
    first = stop_during_start(engine)
    engine.daemon.env["WHARF_TIMEOUTS"] = "supervisor.start=8,supervisor.stop=1"
    try:
        engine.start()
    finally:
        del engine.daemon.env["WHARF_TIMEOUTS"]
        first.signal(signal.SIGCONT)
    assert first.pid not in [process.pid for process in engine.find(SUPERVISOR)]
    engine.docker("run", "--rm", "busybox", "true")


def test_a_supervisor_that_is_killed_while_it_starts(own_engine: Engine) -> None:
    engine = own_engine
    kill_both(engine)
    begin(engine).signal(signal.SIGKILL)
    engine.daemon.wait_for(engine.api)
    engine.docker("run", "--rm", "busybox", "true")


def test_starts_in_quick_succession(own_engine: Engine) -> None:
    """Each start is cut a little later than the previous one; the container keeps its network throughout."""
    engine = own_engine
    identity = engine.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    try:
        pid = state(engine, identity)["Pid"]
        for number in range(8):
            victims = (("wharfd",), (SUPERVISOR,), ("wharfd", SUPERVISOR))[number % 3]
            kill_both(engine)
            engine.daemon.start()
            time.sleep(0.25 * number)
            for name in victims:
                if name == "wharfd":
                    engine.kill(name)
                else:
                    for process in engine.find(name):
                        process.signal(signal.SIGKILL)
            if "wharfd" in victims:
                engine.daemon.start()
            engine.daemon.wait_for(engine.api)
        found = state(engine, identity)
        assert (found["Running"], found["Pid"]) == (True, pid)
        gateway = engine.resources.bip.partition("/")[0]
        assert engine.docker("exec", identity, "ping", "-c", "1", "-W", "5", gateway).status == 0
    finally:
        engine.docker("rm", "-f", identity)
