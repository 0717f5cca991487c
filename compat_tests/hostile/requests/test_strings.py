"""Strings that are invalid as path, device or host name, and numbers beyond any date: refused by name, without a stack
trace in the log; what dockerd accepts is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.host.traces import CGROUPS

NUL = "a\0b"
HUGE = 9_223_372_036_854_775_807


@pytest.fixture(autouse=True)
def check_log(engine: Engine) -> Iterator[None]:
    """A client's error logs at most one line."""
    before = engine.daemon.written
    yield
    output = engine.daemon.tail(1_000_000, since=before)
    assert "Traceback" not in output, output


def in_host(**fields: Any) -> dict[str, Any]:
    return {"HostConfig": {"NetworkMode": "none", **fields}}


PATHS: dict[str, dict[str, Any]] = {
    "working-dir": {"WorkingDir": f"/{NUL}"},
    "volume": {"Volumes": {f"/{NUL}": {}}},
    "bind-source": in_host(Binds=[f"/tmp/{NUL}:/x"]),
    "bind-target": in_host(Binds=[f"/tmp:/{NUL}"]),
    "mount-source": in_host(Mounts=[{"Type": "bind", "Source": f"/tmp/{NUL}", "Target": "/x"}]),
    "mount-target": in_host(Mounts=[{"Type": "volume", "Source": "nul", "Target": f"/{NUL}"}]),
    "subpath": in_host(Mounts=[{"Type": "volume", "Source": "nul", "Target": "/x", "VolumeOptions": {"Subpath": NUL}}]),
    "device-of-a-volume": in_host(
        Mounts=[
            {
                "Type": "volume",
                "Target": "/x",
                "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": NUL}}},
            }
        ]
    ),
    "tmpfs": in_host(Tmpfs={f"/{NUL}": ""}),
    "device": in_host(Devices=[{"PathOnHost": f"/dev/{NUL}", "PathInContainer": "/dev/x"}]),
    "device-inside": in_host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": f"/dev/{NUL}"}]),
    "device-limit": in_host(BlkioDeviceReadBps=[{"Path": f"/dev/{NUL}", "Rate": 100}]),
    "cgroup-parent": in_host(CgroupParent=f"/{NUL}"),
    "long-cgroup-parent": in_host(CgroupParent="/" + "y" * 300),
}


@pytest.mark.parametrize("body", PATHS.values(), ids=PATHS.keys())
def test_invalid_paths_are_refused(engine: Engine, body: dict[str, Any]) -> None:
    answer = engine.api.post("/containers/create", {"Image": "busybox", **body})
    assert answer.status == 400, answer.body
    assert "inval" in answer.message or "does not exist" in answer.message


REQUESTS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/networks/create", {"Name": "nul", "Options": {"com.docker.network.bridge.name": NUL}}),
    ("POST", "/auth", {"username": "u", "serveraddress": NUL}),
    ("POST", "/auth", {"username": "u", "serveraddress": "..\\..\\x"}),
    ("POST", "/auth", {"username": "u", "serveraddress": "127.0.0.1:1\r\nX: y"}),
    ("POST", "/build?remote=http://127.0.0.1:1/%00", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_invalid_host_and_link_names_are_refused(
    engine: Engine, method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = engine.api.request(method, path, data=body)
    assert answer.status in (400, 500)
    assert "internal error" not in answer.message


def test_runtime_errors_are_one_log_line(engine: Engine) -> None:
    """A limit above the host's, a NUL in the environment: the runtime's sentence, and no stack trace."""
    limit = {"Name": "nofile", "Soft": 1 << 40, "Hard": 1 << 40}
    bodies = [in_host(Ulimits=[limit]), {"Env": [f"A={NUL}"], **in_host()}, {"Hostname": NUL, **in_host()}]
    bodies.append(in_host(Sysctls={"net.ipv4.ip_default_ttl": NUL}))
    for body in bodies:
        created = engine.api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
        assert created.status == 201, created.body
        identity = created.json()["Id"]
        before = engine.daemon.written
        try:
            started = engine.api.post(f"/containers/{identity}/start")
            assert started.status in (400, 500), started.body
            assert "OCI runtime create failed" in started.message
            output = [line for line in engine.daemon.tail(100_000, since=before).splitlines() if "ERROR" in line]
            assert len(output) <= 1, output
        finally:
            engine.api.delete(f"/containers/{identity}", force=1)


def test_invalid_host_ip_publishes_on_all_addresses(engine: Engine, oracle: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "nonsense"}]}}}
    for each in (engine, oracle):
        identity = each.api.post("/containers/create", body).json()["Id"]
        try:
            assert each.api.post(f"/containers/{identity}/start").status == 204
        finally:
            each.api.delete(f"/containers/{identity}", force=1)


def test_a_cgroup_parent_stays_in_the_hierarchy(engine: Engine, oracle: Engine) -> None:
    """As dockerd and runc: relative to the hierarchy's root, even with ".." in it."""
    if (CGROUPS / "cgroup.controllers").exists():
        pytest.skip("cgroup v1 or hybrid: with systemd's driver a parent is a slice")
    for each in (engine, oracle):
        parent = f"../../../etc/..{each.resources.cgroup_parent}"
        body = {"Image": "busybox", "Cmd": ["sleep", "100"], **in_host(CgroupParent=parent)}
        identity = each.api.post("/containers/create", body).json()["Id"]
        try:
            assert each.api.post(f"/containers/{identity}/start").status == 204
            pid = each.api.get(f"/containers/{identity}/json").json()["State"]["Pid"]
            with open(f"/proc/{pid}/cgroup") as file:
                paths = {line.rstrip().split(":", 2)[2] for line in file if ":memory:" in line or ":pids:" in line}
            # The hierarchy's root may be a subtree of the host's, as in a container.
            assert paths
            assert all(path.endswith(f"{each.resources.cgroup_parent}/{identity}") for path in paths), paths
            assert not any("etc" in path.split("/") for path in paths), paths
        finally:
            each.api.delete(f"/containers/{identity}", force=1)


@pytest.mark.parametrize("bound", [HUGE, -HUGE, 253_402_300_800, -1])
def test_times_beyond_any_date(engine: Engine, bound: int) -> None:
    identity = engine.api.post("/containers/create", {"Image": "busybox", "Cmd": ["echo", "x"]}).json()["Id"]
    try:
        engine.api.post(f"/containers/{identity}/start")
        engine.api.post(f"/containers/{identity}/wait")
        logs = f"/containers/{identity}/logs?stdout=1"
        assert engine.api.get(f"{logs}&since={bound}").body[8:] == (b"" if bound > 0 else b"x\n")
        assert engine.api.get(f"{logs}&until={bound}").body[8:] == (b"x\n" if bound > 0 else b"")
        events = engine.api.get(f"/events?since={min(bound, 0)}&until=1")
        assert (events.status, events.body) == (200, b"")
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)
