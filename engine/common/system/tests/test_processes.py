"""A process is identified even after its pid was reused."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.common.system.processes import Process, start_time


def test_a_process_is_pid_and_start_time() -> None:
    pid = os.getpid()
    started = start_time(pid)
    with Process(pid, started) as process:
        assert process.read("comm").decode() == Path("/proc/self/comm").read_text()
        fd = process.open("ns/net", os.O_RDONLY)
        assert os.fstat(fd).st_ino == os.stat("/proc/self/ns/net").st_ino
        os.close(fd)
    with pytest.raises(ProcessLookupError):
        Process(pid, started - 1)
    with pytest.raises(ProcessLookupError):
        Process(pid, 0)


@pytest.mark.root
def test_a_reused_pid() -> None:
    """In a new pid namespace, where the next pid can be chosen (``ns_last_pid``)."""
    program = """
        import os, time
        from engine.common.system.processes import Process, start_time

        def child():
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(0)
            return pid

        pid = child()
        started = start_time(pid)
        held = Process(pid, started)
        os.kill(pid, 9)
        try:
            held.open("root", os.O_RDONLY)
        except ProcessLookupError:
            pass  # a zombie has no root any more
        os.waitpid(pid, 0)
        time.sleep(0.05)  # the clock of start times ticks every 10 ms
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        other = child()
        assert other == pid
        os.close(os.open(f"/proc/{pid}/root", os.O_RDONLY))  # a path leads into the other process
        for name in ("root", "ns/net", "ns/mnt", "net/dev"):
            try:
                held.open(name, os.O_RDONLY)
            except ProcessLookupError:
                continue
            raise AssertionError(name)
        try:
            Process(pid, started)
        except ProcessLookupError:
            print("never the other")
        os.kill(other, 9)
    """
    argv = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        sys.executable,
        "-c",
        textwrap.dedent(program),
    ]
    root = str(Path(__file__).parents[4])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=root, check=False)
    assert (done.stdout, done.returncode) == ("never the other\n", 0), done.stderr
