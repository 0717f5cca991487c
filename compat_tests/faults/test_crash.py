"""Daemons that are killed at a given step of an operation, or while a container exits: nothing stays half done.

:mod:`compat_tests.endurance.crash` tries every step; this module tries those at which something was or could be lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.endurance.crash import NAME, OPERATIONS, Sweep, sweeping, try_step
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import start_time
from compat_tests.support.polling import until

pytestmark = pytest.mark.slow

SUPERVISOR = "wharf-supervis"
BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture(scope="module")
def sweep(own_engine: Engine) -> Iterator[Sweep]:
    if own_engine.kind != "wharf":
        pytest.skip("the embedded supervisor only")
    with sweeping(own_engine) as sweep:
        yield sweep


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("create", "/_data"),  # an anonymous volume has a directory and no record
        ("create", "after write"),  # of the volume: the container has no record yet
        ("start", "after /containerd.services.tasks.v1.Tasks/Start"),
        ("connect", "after netlink"),
        ("rm", "before /containerd.services.tasks.v1.Tasks/Delete"),
        ("rm", "shutil.rmtree"),  # its anonymous volume, after the container's record was deleted
        ("remove", "before /containerd.services.snapshots.v1.Snapshots/Remove"),
    ],
)
def test_killed_at_a_step(sweep: Sweep, name: str, step: str) -> None:
    assert try_step(sweep, BY_NAME[name], step), sweep.passed


@pytest.mark.parametrize("away", [("wharfd",), (SUPERVISOR,), ("wharfd", SUPERVISOR)], ids=" and ".join)
def test_auto_remove_after_an_unobserved_exit(sweep: Sweep, away: tuple[str, ...]) -> None:
    """The container's process exits while daemons are dead; --rm still removes the container."""
    engine = sweep.engine
    id = sweep.create("sh", "-c", "read x < /named/go; exit 3", AutoRemove=True)
    engine.docker("run", "--rm", "-v", "crash-volume:/v", "busybox", "mkfifo", "/v/go")
    try:
        sweep.must("POST", f"/containers/{id}/start")
        pid = sweep.must("GET", f"/containers/{id}/json")["State"]["Pid"]
        go = f"{sweep.must('GET', '/volumes/crash-volume')['Mountpoint']}/go"
        for name in away:
            engine.kill(name)
        with open(go, "w") as file:
            file.write("\n")
        if "wharfd" in away:
            assert until(lambda: start_time(pid) is None)
            engine.start()
        assert until(lambda: sweep.state(id) is None)
        sweep.nothing_left()
    finally:
        sweep.remove()
        engine.docker("run", "--rm", "-v", "crash-volume:/v", "busybox", "rm", "-f", "/v/go")
    assert engine.api.get(f"/containers/{NAME}/json").status == 404


def test_kill_survives_the_supervisor(sweep: Sweep) -> None:
    """The supervisor dies after it has sent the signal and before it answers: the request still succeeds."""
    sweep.engine.kill(SUPERVISOR)  # wharfd restarts it as one that dies at steps
    # A create at the moment of this death fails with 503.
    assert until(lambda: sweep.api("GET", "/version")[0] == 200)
    id = sweep.create("sleep", "600", AutoRemove=True)
    sweep.must("POST", f"/containers/{id}/start")
    answers: list[int] = []
    sweep.victim = "supervisor"
    try:
        died = sweep.at(
            "after shim kill",
            lambda: answers.append(sweep.api("POST", f"/containers/{id}/kill")[0]),
            lambda: sweep.state(id) is None,
        )
    finally:
        sweep.victim = "wharfd"
    assert (died, answers) == (True, [204])
    assert until(lambda: sweep.state(id) is None)
    sweep.nothing_left()
