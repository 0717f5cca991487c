"""GPUs of several users, made up by a CDI specification: allocation, limits, sharing, and the queue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.api import Answer
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User, lab

POLICY = """
published_images = ["docker.io/library/*"]

[users]
{alice} = "member"
{bob} = "member"
{carol} = "sharer"

[roles.member]
gpus = 2
devices = false

[roles.sharer]
gpus = 1
shared_gpus = ["nvidia.com/gpu=2"]
"""
KIND = "nvidia.com/gpu"
#: Files of the host that stand for the nodes of three GPUs.
NODES = ("/dev/zero", "/dev/null", "/dev/full")
COMPOSE = """
services:
  job:
    image: busybox
    command: ["sleep", "600"]
    init: true
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}
"""


def specification() -> dict[str, Any]:
    """Three GPUs as `nvidia-ctk cdi generate` declares them: by number, by UUID, and all together."""
    nodes = [{"path": f"/dev/gpu{number}", "hostPath": path} for number, path in enumerate(NODES)]
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [node]}}
        for number, node in enumerate(nodes)
        for name in (str(number), f"GPU-{number}")
    ]
    devices.append({"name": "all", "containerEdits": {"deviceNodes": nodes}})
    return {"cdiVersion": "0.6.0", "kind": KIND, "devices": devices}


@pytest.fixture(scope="module")
def gpu_lab() -> Iterator[Lab]:
    with lab("gpulab", POLICY, ("alice", "bob", "carol")) as made:
        made.engine.cdi.mkdir(exist_ok=True)
        (made.engine.cdi / "nvidia.json").write_text(json.dumps(specification()))
        yield made


@pytest.fixture(autouse=True)
def _free(gpu_lab: Lab) -> Iterator[None]:
    """Each test begins and ends without containers."""
    yield
    gpu_lab.engine.remove_all()


def run(user: User, *args: str) -> str:
    """A container with GPUs in the background; returns its id."""
    return user.docker("run", "-d", "--init", "--network", "none", *args, "busybox", "sleep", "600").stdout.strip()


def gpus_in(user: User, id: str) -> list[str]:
    """The GPUs whose nodes the container has."""
    names = user.docker("exec", id, "ls", "/dev").stdout.split()
    return sorted(name for name in names if name.startswith("gpu"))


def refused(user: User, *args: str) -> str:
    """The message of a start that is refused; its container is removed."""
    before = user.docker("ps", "-aq").stdout
    failed = user.docker("run", "--rm", "--network", "none", *args, "busybox", "true", check=False)
    assert failed.status == 125, failed
    assert user.docker("ps", "-aq").stdout == before
    return failed.stderr


def status(user: User, id: str) -> str:
    rows = user.api.get("/containers/json", all=1).json()
    return next(str(row["Status"]) for row in rows if row["Id"] == id)


def create(user: User, *args: str) -> str:
    return user.docker("create", "--init", "--network", "none", *args, "busybox", "sleep", "600").stdout.strip()


def start(user: User, id: str) -> Answer:
    return user.api.post(f"/containers/{id}/start")


@contextlib.contextmanager
def starting(user: User, id: str) -> Iterator[subprocess.Popen[bytes]]:
    """`docker start` of a container that waits for GPUs; ended with the block."""
    client = subprocess.Popen(
        ["docker", "start", id],
        env=user.environment, cwd=user.home, user=user.credentials.uid, group=user.credentials.gid, extra_groups=(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert until(lambda: waits(user, id))
        yield client
    finally:
        client.kill()
        client.wait(60)


def is_running(user: User, id: str) -> bool:
    return bool(user.api.get(f"/containers/{id}/json").json()["State"]["Running"])


def waits(user: User, id: str) -> bool:
    return "waiting for a GPU" in status(user, id)


def test_a_gpu_belongs_to_one_container(gpu_lab: Lab) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    one = run(alice, "--gpus", "1")
    assert gpus_in(alice, one) == ["gpu0"]
    for name in ("0", "GPU-0"):
        message = refused(bob, "--gpus", f"device={name}")
        assert f"not enough free GPUs: {KIND}=0 is held by {alice.name} since 20" in message
        assert one not in message
    assert f"held by {alice.name}" in refused(bob, "--device", f"{KIND}=0")
    other = run(bob, "--gpus", "1")
    assert gpus_in(bob, other) == ["gpu1"]
    # An administrator's container takes part.
    assert "not enough free GPUs" in gpu_lab.engine.docker(
        "run", "--rm", "--network", "none", "--gpus", "all", "busybox", "true", check=False
    ).stderr  # fmt: skip
    id = gpu_lab.engine.docker("run", "-d", "--gpus", "device=GPU-2", "--network", "none", "busybox", "top").stdout
    assert f"{KIND}=2 is held by an administrator since" in refused(bob, "--gpus", "device=2")
    gpu_lab.engine.docker("rm", "-f", id.strip())


def test_all_and_the_limit_of_the_role(gpu_lab: Lab) -> None:
    alice = gpu_lab["alice"]
    assert "your role does not allow 3 GPUs: its limit is 2" in refused(alice, "--gpus", "3")
    both = run(alice, "--gpus", "all")
    assert gpus_in(alice, both) == ["gpu0", "gpu1"]
    assert f"{alice.name} has 2 GPUs, and the role's limit is 2" in refused(alice, "--gpus", "1")
    alice.docker("rm", "-f", both)
    assert gpus_in(alice, run(alice, "--device", f"{KIND}=all")) == ["gpu0", "gpu1"]


def test_compose(gpu_lab: Lab) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    (alice.home / "compose.yaml").write_text(COMPOSE)
    os.chown(alice.home / "compose.yaml", alice.credentials.uid, alice.credentials.gid)
    alice.docker("compose", "-p", "gpus", "up", "-d")
    id = alice.docker("compose", "-p", "gpus", "ps", "-q").stdout.strip()
    assert gpus_in(alice, id) == ["gpu0", "gpu1"]
    assert f"held by {alice.name}" in refused(bob, "--gpus", "2")
    alice.docker("compose", "-p", "gpus", "down", "-t", "0")
    assert gpus_in(bob, run(bob, "--gpus", "2")) == ["gpu0", "gpu1"]


def test_shared_gpus(gpu_lab: Lab) -> None:
    bob, carol = gpu_lab["bob"], gpu_lab["carol"]
    shared = [run(carol, "--gpus", "device=2") for _ in range(2)]
    assert [gpus_in(carol, id) for id in shared] == [["gpu2"]] * 2
    assert f"{KIND}=2 is held by {carol.name} since" in refused(bob, "--gpus", "device=2")
    # The limit counts it once.
    assert f"{carol.name} has 1 GPU, and the role's limit is 1" in refused(carol, "--gpus", "device=0")


def test_the_allocation_ends_with_the_container(gpu_lab: Lab) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    id = run(alice, "--gpus", "device=0")
    pid = alice.api.get(f"/containers/{id}/json").json()["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not is_running(alice, id))
    taken = run(bob, "--gpus", "device=0")
    assert start(alice, id).status == 409
    bob.docker("stop", "-t", "0", taken)
    assert start(alice, id).status == 204


def test_gpu_hours_are_accounted(gpu_lab: Lab) -> None:
    alice = gpu_lab["alice"]
    for gpus in (0, 2):
        words = ("--gpus", str(gpus)) if gpus else ()
        alice.docker("run", "--rm", "--name", f"had{gpus}", "--network", "none", *words, "busybox", "sleep", "2")
    used = {row["ContainerName"]: row["GpuHours"] for row in alice.api.get("/wharf/v1/usage", containers=1).json()}
    assert used["had0"] == 0
    assert 2 * 2 / 3600 <= used["had2"] < 2 * 60 * FACTOR / 3600


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_restart_of_the_daemon(gpu_lab: Lab, *, killed: bool) -> None:
    """Containers that run keep their GPUs; those that end meanwhile don't."""
    alice, bob, engine = gpu_lab["alice"], gpu_lab["bob"], gpu_lab.engine
    kept, ended = run(alice, "--gpus", "device=0"), run(alice, "--gpus", "device=GPU-1")
    pid = alice.api.get(f"/containers/{ended}/json").json()["State"]["Pid"]
    if killed:
        engine.kill("wharfd")
    else:
        engine.daemon.stop()
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not Path(f"/proc/{pid}").exists())
    engine.start()
    assert f"{KIND}=0 is held by {alice.name} since" in refused(bob, "--gpus", "device=0")
    assert gpus_in(bob, run(bob, "--gpus", "device=1")) == ["gpu1"]
    alice.docker("rm", "-f", kept)
    assert gpus_in(bob, run(bob, "--gpus", "device=0")) == ["gpu0"]


def test_the_order_of_the_queue(gpu_lab: Lab) -> None:
    """Two containers of alice and one of bob wait for carol's GPU. It is allocated to the first container of alice,
    then to that of bob, and then to the second one of alice."""
    alice, bob, carol = gpu_lab["alice"], gpu_lab["bob"], gpu_lab["carol"]
    # So that neither alice nor bob has the latest allocation, and alice's is older.
    for user in (alice, bob):
        user.docker("rm", "-f", run(user, "--gpus", "device=0"))
    holder = run(carol, "--gpus", "device=0")
    options = ("--gpus", "device=0", "--label", "wharf.wait=10m")
    first, third, second = (create(user, *options) for user in (alice, alice, bob))
    since = int(time.time())
    with (
        starting(alice, first) as first_start,
        starting(alice, third) as third_start,
        starting(bob, second) as second_start,
    ):
        assert status(alice, first) == "Created (waiting for a GPU, place 1 of 3)"
        assert status(bob, second) == "Created (waiting for a GPU, place 2 of 3)"
        assert status(alice, third) == "Created (waiting for a GPU, place 3 of 3)"
        # The places count containers of alice, which bob does not see.
        assert [row["Id"] for row in bob.api.get("/containers/json", all=1).json()] == [second]
        carol.docker("rm", "-f", holder)
        assert first_start.wait(60) == 0
        assert status(bob, second) == "Created (waiting for a GPU, place 1 of 2)"
        alice.docker("rm", "-f", first)
        assert second_start.wait(60) == 0
        assert waits(alice, third)
        bob.docker("rm", "-f", second)
        assert third_start.wait(60) == 0
    assert gpus_in(alice, third) == ["gpu0"]
    window = {"since": since, "until": int(time.time()) + 1, "filters": json.dumps({"event": ["gpu-queue"]})}
    places = [
        (event["Actor"]["Attributes"]["place"], event["Actor"]["Attributes"]["of"])
        for event in alice.api.get("/events", **window).lines()
        if event["Actor"]["ID"] == third
    ]
    assert places == [("2", "2"), ("3", "3"), ("2", "2"), ("1", "1")]
    assert {event["Actor"]["ID"] for event in bob.api.get("/events", **window).lines()} == {second}


def test_a_large_request_is_not_delayed_by_small_ones(gpu_lab: Lab) -> None:
    alice, bob, carol = gpu_lab["alice"], gpu_lab["bob"], gpu_lab["carol"]
    one, other = run(bob, "--gpus", "device=0"), run(bob, "--gpus", "device=1")
    third = run(carol, "--gpus", "device=2")
    large = create(alice, "--gpus", "2", "--label", "wharf.wait=10m")
    with starting(alice, large) as started:
        bob.docker("rm", "-f", one)
        assert f"{KIND}=0 is reserved for a container that waits" in refused(bob, "--gpus", "1")
        bob.docker("rm", "-f", other)
        assert started.wait(60) == 0
    assert gpus_in(alice, large) == ["gpu0", "gpu1"]
    carol.docker("rm", "-f", third)


def test_the_wait_ends_with_its_time(gpu_lab: Lab) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    run(alice, "--gpus", "device=0")
    message = refused(bob, "--gpus", "device=0", "--label", "wharf.wait=1s")
    assert f"no GPUs within 1s: {KIND}=0 is held by {alice.name} since" in message
    assert "not a duration" in refused(bob, "--gpus", "device=0", "--label", "wharf.wait=ever")


def test_a_client_that_leaves_leaves_the_queue(gpu_lab: Lab) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    holder = run(alice, "--gpus", "device=0")
    argv = ("docker", "run", "--rm", "--name", "job", "--network", "none", "--gpus", "device=0")
    client = subprocess.Popen(
        [*argv, "--label", "wharf.wait=10m", "busybox", "true"],
        env=bob.environment, cwd=bob.home, user=bob.credentials.uid, group=bob.credentials.gid, extra_groups=(),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert until(lambda: bob.docker("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Created (waiting"))
    finally:
        client.kill()
        client.wait(60)
    # Its container has --rm.
    assert until(lambda: bob.docker("ps", "-aq").stdout == "")
    waiting = create(bob, "--gpus", "device=0", "--label", "wharf.wait=10m")
    sock = bob.api.raw()
    sock.sendall(f"POST /containers/{waiting}/start HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
    assert until(lambda: waits(bob, waiting))
    sock.close()
    assert until(lambda: status(bob, waiting) == "Created")
    alice.docker("rm", "-f", holder)
    assert not is_running(bob, waiting)
    assert start(bob, waiting).status == 204


@pytest.mark.parametrize("command", ["stop", "kill", "rm"])
def test_a_stop_ends_the_wait(gpu_lab: Lab, command: str) -> None:
    alice, bob = gpu_lab["alice"], gpu_lab["bob"]
    run(alice, "--gpus", "device=0")
    waiting = create(bob, "--gpus", "device=0", "--label", "wharf.wait=10m")
    with starting(bob, waiting) as started:
        bob.docker(command, waiting)
        assert started.wait(60) == 1


def test_a_restart_policy_waits_without_a_client(gpu_lab: Lab) -> None:
    """The container exits, and another one has its GPU before the policy starts it again; then the daemon restarts."""
    alice, bob, engine = gpu_lab["alice"], gpu_lab["bob"], gpu_lab.engine
    always = run(alice, "--gpus", "device=0", "--restart", "always")
    waiting = create(bob, "--gpus", "device=0", "--label", "wharf.wait=10m")
    with starting(bob, waiting) as started:
        os.kill(alice.api.get(f"/containers/{always}/json").json()["State"]["Pid"], signal.SIGKILL)
        assert started.wait(60) == 0
    assert until(lambda: waits(alice, always))
    assert status(alice, always).startswith("Restarting (137)")
    engine.restart()
    assert is_running(bob, waiting)
    assert until(lambda: waits(alice, always))
    bob.docker("rm", "-f", waiting)
    assert until(lambda: status(alice, always).startswith("Up"))
    # A stop ends its wait, too.
    taken = create(bob, "--gpus", "device=0", "--label", "wharf.wait=10m")
    with starting(bob, taken) as started:
        os.kill(alice.api.get(f"/containers/{always}/json").json()["State"]["Pid"], signal.SIGKILL)
        assert started.wait(60) == 0
    assert until(lambda: waits(alice, always))
    alice.docker("stop", always)
    assert status(alice, always).startswith("Exited (137)")
