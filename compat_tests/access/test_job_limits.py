"""The limits of a job socket bound what is created through it together, on real containers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.access.test_shares import group, read
from compat_tests.support.api import Api
from compat_tests.support.containers import UNIFIED
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User, lab

POLICY = """
published_images = ["docker.io/library/*"]
[users]
{alice} = "member"
[roles.member]
cpus = 2.0
memory = "512m"
pids = 200
"""


@pytest.fixture(scope="module")
def limited() -> Iterator[Lab]:
    with lab("joblimits", POLICY, ("alice",)) as made:
        yield made


def job(lab: Lab, **limits: Any) -> tuple[str, User]:
    user = lab["alice"]
    document = user.api.post("/wharf/v1/sockets", data={"Limits": limits}).json()
    return document["Id"], User(user.name, user.credentials, user.home, Path(document["Path"]))


def run(user: User, name: str, script: str = "exec sleep 3600") -> None:
    user.docker("run", "-d", "--init", "--name", name, "busybox", "sh", "-c", script)


def test_limits_are_in_a_cgroup_below_that_of_the_user(limited: Lab) -> None:
    id, ci = job(limited, Cpus=0.5, Memory=96 << 20, Pids=30)
    alice = limited["alice"]
    run(ci, "one")
    run(ci, "two")
    run(alice, "own")
    cpu = group(limited, ci, "one", "cpu")
    assert cpu == group(limited, ci, "two", "cpu")
    assert cpu.parent == group(limited, alice, "own", "cpu")
    assert read(cpu, "cpu.max", "cpu.cfs_quota_us").split()[0] == "50000"
    assert read(cpu.parent, "cpu.max", "cpu.cfs_quota_us").split()[0] == "200000"
    memory, pids = (group(limited, ci, "one", name) for name in ("memory", "pids"))
    assert read(memory, "memory.max", "memory.limit_in_bytes") == str(96 << 20)
    assert read(pids, "pids.max", "pids.max") == "30"

    # Together: the processes of both containers, and the memory of one.
    run(ci, "bomb", "for i in $(seq 100); do sleep 30 & done; wait")
    assert until(lambda: "can't fork" in ci.docker("logs", "bomb").stderr)
    assert int((pids / "pids.current").read_text()) <= 30
    alice.docker("run", "--rm", "busybox", "sh", "-c", "for i in $(seq 60); do sleep 1 & done; wait")
    ci.docker("rm", "-f", "bomb")
    hog = "head -c 200m /dev/zero | tail -n 1 | wc -c"
    ci.docker("run", "--name", "hog", "busybox", "sh", "-c", f"{hog}; echo ended", check=False)
    assert "209715200" not in ci.docker("logs", "hog").stdout
    assert alice.docker("run", "--rm", "busybox", "sh", "-c", hog).stdout.strip() == "209715200"

    # A new policy, and a new daemon.
    before = limited.policy.read_text()
    limited.policy.write_text(before.replace("cpus = 2.0", "cpus = 0.3"))
    os.kill(limited.engine.daemon.pid, signal.SIGHUP)
    assert until(lambda: read(cpu.parent, "cpu.max", "cpu.cfs_quota_us").split()[0] == "30000")
    limited.policy.write_text(before)
    os.kill(limited.engine.daemon.pid, signal.SIGHUP)
    assert until(lambda: read(cpu.parent, "cpu.max", "cpu.cfs_quota_us").split()[0] == "200000")
    assert until(lambda: read(cpu, "cpu.max", "cpu.cfs_quota_us").split()[0] == "50000")
    limited.engine.restart()
    assert read(pids, "pids.max", "pids.max") == "30"
    run(ci, "three")
    assert group(limited, ci, "three", "pids") == pids
    assert alice.api.delete(f"/wharf/v1/sockets/{id}").status == 204
    assert until(lambda: not cpu.is_dir())
    assert cpu.parent.is_dir()
    alice.docker("rm", "-f", "own")


def test_counts_and_what_would_evade_the_limits(limited: Lab) -> None:
    id, ci = job(limited, Containers=2, Cpus=0.5)
    alice = limited["alice"]
    for name in ("one", "two"):
        ci.docker("create", "--name", name, "busybox")
    refused = ci.docker("create", "busybox", check=False).stderr
    assert "the job socket allows you 2 containers, and 2 exist: one, two" in refused
    alice.docker("rm", alice.docker("create", "busybox").stdout.strip())
    ci.docker("rm", "two")
    refused = ci.docker("create", "--cpus", "1", "busybox", check=False).stderr
    assert "range of CPUs is from 0.01 to 0.50, as the job socket allows you no more" in refused
    assert alice.api.delete(f"/wharf/v1/sockets/{id}").status == 204


def test_an_administrators_job(limited: Lab) -> None:
    engine = limited.engine
    document = engine.api.post("/wharf/v1/sockets", data={"Limits": {"Pids": 25}}).json()
    api = Api(Path(document["Path"]))
    body = {"Image": "busybox", "Cmd": ["sleep", "3600"], "HostConfig": {"CgroupParent": "/elsewhere"}}
    assert api.post("/containers/create", body).error == (
        403,
        "your role does not allow --cgroup-parent: the containers of this job socket have limits together",
    )
    id = api.post("/containers/create", {**body, "HostConfig": {}}).json()["Id"]
    assert api.post(f"/containers/{id}/start").status == 204
    pid = api.get(f"/containers/{id}/json").json()["State"]["Pid"]
    lines = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    place = Path("/sys/fs/cgroup") / ("" if UNIFIED else "pids") / lines["" if UNIFIED else "pids"].strip("/")
    assert (place.parent / "pids.max").read_text().strip() == "25"
    assert engine.api.delete(f"/wharf/v1/sockets/{document['Id']}").status == 204
    assert until(lambda: not place.parent.is_dir())
