"""Every field of a create request: honoured (shown by a container that has it) or refused by name. See fields.py."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compat_tests import fields
from compat_tests.engines import Engine
from compat_tests.images import ROOT
from compat_tests.traces import cgroups_named, until

pytestmark = pytest.mark.root

UNIFIED = not Path("/sys/fs/cgroup/memory").is_dir()
MIB = 1 << 20


# ---- the matrix itself -----------------------------------------------------------------------------------


def model_fields() -> set[str]:
    """The request fields of the models, by Docker's names (read from a process of its own: a black box's words)."""
    script = (
        "from api_models.container import ContainerConfig, HostConfig\n"
        "from api_models.network import EndpointSettings\n"
        "named = {'Config': ContainerConfig, 'HostConfig': HostConfig, 'Endpoint': EndpointSettings}\n"
        "for name, model in named.items():\n"
        "    for attribute, field in model.model_fields.items():\n"
        "        print(f'{name}.{field.alias or attribute}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_each_field_has_its_row() -> None:
    rows = [*fields.HONOURED, *fields.SHOWN, *fields.REFUSED, *fields.OPERATIONAL]
    assert len(rows) == len(set(rows))
    assert set(rows) == model_fields()


def test_each_row_names_code_and_a_test_that_exist() -> None:
    for field, (module, test) in fields.HONOURED.items():
        assert (ROOT / module).is_file(), f"{field}: {module}"
        check_test(field, test)
    for field, test in fields.REFUSED.items():
        check_test(field, test)


def check_test(field: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{field}: no test {test}"


# ---- helpers ---------------------------------------------------------------------------------------------


def create(engine: Engine, body: dict[str, Any], **query: str) -> tuple[str, list[str]]:
    host = {"NetworkMode": "none", **body.get("HostConfig", {})}
    answer = engine.api.post("/containers/create", {"Image": "busybox", **body, "HostConfig": host}, **query)
    assert answer.status == 201, answer.body
    return answer.json()["Id"], answer.json()["Warnings"]


@contextmanager
def running(engine: Engine, body: dict[str, Any], **query: str) -> Iterator[str]:
    """A container that sleeps, unless the body says what to run."""
    identity, _ = create(engine, {"Cmd": ["sleep", "600"], **body}, **query)
    try:
        answer = engine.api.post(f"/containers/{identity}/start")
        assert answer.status == 204, answer.body
        yield identity
    finally:
        engine.api.delete(f"/containers/{identity}", force=1, v=1)


def output(engine: Engine, body: dict[str, Any], script: str) -> list[str]:
    """The lines that a shell prints inside."""
    with running(engine, {**body, "Cmd": ["sh", "-c", script]}) as identity:
        engine.api.post(f"/containers/{identity}/wait")
        return engine.docker("logs", identity).output.splitlines()


def pid_of(engine: Engine, identity: str) -> int:
    return int(engine.api.get(f"/containers/{identity}/json").json()["State"]["Pid"])


def cgroup_of(engine: Engine, identity: str, controller: str) -> Path:
    """The container's directory in a controller's hierarchy (or the one tree of v2)."""
    for line in Path(f"/proc/{pid_of(engine, identity)}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if UNIFIED and names == "":
            return Path(f"/sys/fs/cgroup{path}")
        if not UNIFIED and controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}")
    raise AssertionError(f"no {controller} cgroup")


# ---- limits ----------------------------------------------------------------------------------------------

V1_LIMITS = {
    "memory/memory.limit_in_bytes": str(64 * MIB),
    "memory/memory.soft_limit_in_bytes": str(32 * MIB),
    "memory/memory.swappiness": "11",
    "cpu/cpu.shares": "300",
    "cpu/cpu.cfs_period_us": "50000",
    "cpu/cpu.cfs_quota_us": "25000",
    "cpuset/cpuset.cpus": "0",
    "cpuset/cpuset.mems": "0",
    "pids/pids.max": "77",
}
V2_LIMITS = {
    "memory/memory.max": str(64 * MIB),
    "memory/memory.low": str(32 * MIB),
    "cpu/cpu.max": "25000 50000",
    "cpuset/cpuset.cpus": "0",
    "cpuset/cpuset.mems": "0",
    "pids/pids.max": "77",
}


def test_limits_reach_the_kernel(engine: Engine) -> None:
    limits = {
        "Memory": 64 * MIB,
        "MemoryReservation": 32 * MIB,
        "MemorySwap": 96 * MIB,
        "MemorySwappiness": 11,
        "CpuShares": 300,
        "CpuPeriod": 50000,
        "CpuQuota": 25000,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "PidsLimit": 77,
    }
    with running(engine, {"HostConfig": limits}) as identity:
        for name, value in (V2_LIMITS if UNIFIED else V1_LIMITS).items():
            controller, file = name.split("/")
            path = cgroup_of(engine, identity, controller) / file
            if path.exists():
                assert path.read_text().strip() == value, name
        swap = cgroup_of(engine, identity, "memory") / ("memory.swap.max" if UNIFIED else "memory.memsw.limit_in_bytes")
        if swap.exists():
            assert swap.read_text().strip() == str((32 if UNIFIED else 96) * MIB)
    with running(engine, {"HostConfig": {"NanoCpus": 500_000_000}}) as identity:
        directory = cgroup_of(engine, identity, "cpu")
        if UNIFIED:
            assert (directory / "cpu.max").read_text().split() == ["50000", "100000"]
        else:
            assert (directory / "cpu.cfs_quota_us").read_text().strip() == "50000"


def test_oom_kill_disable(engine: Engine) -> None:
    if UNIFIED:
        pytest.skip("cgroup v2 has no such switch")
    with running(engine, {"HostConfig": {"OomKillDisable": True, "Memory": 64 * MIB}}) as identity:
        control = (cgroup_of(engine, identity, "memory") / "memory.oom_control").read_text()
        assert "oom_kill_disable 1" in control
    _, warnings = create_and_remove(engine, {"HostConfig": {"OomKillDisable": True}})
    assert "OOM killer is disabled for the container, but no memory limit is set" in warnings[0]


def create_and_remove(engine: Engine, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    identity, warnings = create(engine, body)
    try:
        return engine.api.get(f"/containers/{identity}/json").json(), warnings
    finally:
        engine.api.delete(f"/containers/{identity}", v=1)


def block_device() -> str | None:
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}") and not name.startswith(("loop", "ram", "zram")):
            return f"/dev/{name}"
    return None


def test_block_devices(engine: Engine) -> None:
    absent = {"BlkioDeviceReadBps": [{"Path": "/dev/nosuch", "Rate": 1000}]}
    identity, _ = create(engine, {"Cmd": ["true"], "HostConfig": absent})
    try:
        answer = engine.api.post(f"/containers/{identity}/start")
        assert answer.status == 500
        assert "no such file or directory" in answer.message
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)
    device = block_device()
    if device is None or (not UNIFIED and not Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device").exists()):
        pytest.skip("no block device here, or no throttling")
    limits = {
        "BlkioDeviceReadBps": [{"Path": device, "Rate": 1 * MIB}],
        "BlkioDeviceWriteBps": [{"Path": device, "Rate": 2 * MIB}],
        "BlkioDeviceReadIOps": [{"Path": device, "Rate": 30}],
        "BlkioDeviceWriteIOps": [{"Path": device, "Rate": 40}],
    }
    info = os.stat(device).st_rdev
    numbers = f"{os.major(info)}:{os.minor(info)}"
    with running(engine, {"HostConfig": limits}) as identity:
        directory = cgroup_of(engine, identity, "blkio")
        if UNIFIED:
            assert (directory / "io.max").read_text().strip() == (
                f"{numbers} rbps={MIB} wbps={2 * MIB} riops=30 wiops=40"
            )
        else:
            for file, value in (("read_bps", MIB), ("write_bps", 2 * MIB), ("read_iops", 30), ("write_iops", 40)):
                text = (directory / f"blkio.throttle.{file}_device").read_text()
                assert text.strip() == f"{numbers} {value}"


CDI = """
cdiVersion: "0.7.0"
kind: example.com/thing
containerEdits:
  env: [THINGS=yes]
  additionalGids: [77]
devices:
  - name: one
    containerEdits:
      env: [ONE=first]
      deviceNodes: [{path: /dev/thing1, hostPath: /dev/zero, permissions: rw}]
      mounts: [{hostPath: %s, containerPath: /thing, options: [bind, ro]}]
  - name: two
    containerEdits:
      deviceNodes: [{path: /dev/thing2, hostPath: /dev/zero, type: c, major: 1, minor: 5}]
"""
GPU = {
    "cdiVersion": "0.7.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "all", "containerEdits": {"env": ["G=1"]}}],
}


def test_devices_of_cdi(engine: Engine, tmp_path: Path) -> None:
    engine.cdi.mkdir(exist_ok=True)
    (tmp_path / "file").write_text("mounted")
    files = {"thing.yaml": CDI % tmp_path, "gpu.json": json.dumps(GPU)}
    for name, text in files.items():
        (engine.cdi / name).write_text(text)

    def asking(driver: str, *names: str, count: int = 0, **more: Any) -> dict[str, Any]:
        return {"HostConfig": {"DeviceRequests": [{"Driver": driver, "DeviceIDs": names, "Count": count, **more}]}}

    try:
        both = asking("cdi", "example.com/thing=one", "example.com/thing=two")
        script = "echo $THINGS $ONE; cat /thing/file; echo; ls /dev | grep thing"
        script += "; head -c 2 /dev/thing1 | wc -c"
        # dockerd's watch of the directory may see the files a little later.
        assert until(lambda: fails(engine, asking("cdi", "example.com/thing=two")) == "")
        assert output(engine, both, script) == ["yes first", "mounted", "thing1", "thing2", "2"]
        assert fails(engine, asking("cdi", "example.com/thing=none")) == (
            "CDI device injection failed: unresolvable CDI devices example.com/thing=none"
        )
        if engine.kind != "dockerd":
            assert output(engine, both, "id -G | tr ' ' '\\n' | grep 77") == ["77"]
            gpus = asking("", count=-1, Capabilities=[["gpu"]])
            assert output(engine, gpus, "echo $G") == ["1"]
            known = engine.api.get("/info").json()["DiscoveredDevices"]
            assert {"Source": "cdi", "ID": "example.com/thing=one"} in known
    finally:
        for name in files:
            (engine.cdi / name).unlink()
    assert "could not select device driver" in fails(engine, asking("odd"))


def fails(engine: Engine, body: dict[str, Any]) -> str:
    """Why such a container does not start; "" if it does."""
    identity, _ = create(engine, {"Cmd": ["true"], **body})
    try:
        answer = engine.api.post(f"/containers/{identity}/start")
        return "" if answer.status == 204 else answer.message
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_cgroup_parent(engine: Engine) -> None:
    parent = f"{engine.place.footprint.cgroup}/below"
    try:
        with running(engine, {"HostConfig": {"CgroupParent": f"/{parent}"}}) as identity:
            path = str(cgroup_of(engine, identity, "pids"))
            assert path.endswith(f"{parent}/{identity}"), path
    finally:
        # A parent of one's own stays, as with dockerd: it may hold other things.
        for folder in cgroups_named(engine.place.footprint.cgroup):
            if folder.name == "below":
                until(lambda folder=folder: remove_empty(folder))  # type: ignore[misc]


def remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


# ---- the process and what it sees ------------------------------------------------------------------------

INSIDE: list[tuple[str, dict[str, Any], str, list[str]]] = [
    (
        "Domainname",
        {"Hostname": "h", "Domainname": "d.test"},
        "cat /proc/sys/kernel/domainname; hostname",
        ["d.test", "h"],
    ),
    (
        "Devices",
        {
            "HostConfig": {
                "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/mine", "CgroupPermissions": "rwm"}]
            }
        },
        "head -c 3 /dev/mine | wc -c",
        ["3"],
    ),
    (
        "DeviceCgroupRules",
        # Nobody has majors 240 and 241: the kernel finds no device where the cgroup lets it look.
        {"HostConfig": {"DeviceCgroupRules": ["c 240:* rwm"]}},
        "mknod /a c 240 1 && head -c 1 /a; mknod /b c 241 1 && head -c 1 /b",
        ["head: /a: No such device or address", "head: /b: Operation not permitted"],
    ),
    ("GroupAdd", {"User": "1", "HostConfig": {"GroupAdd": ["55", "root"]}}, "id -G", ["1 0 55"]),
    (
        "ShmSize",
        {"HostConfig": {"ShmSize": 3 * MIB}},
        "grep ' /dev/shm ' /proc/mounts | grep -o size=[0-9]*k",
        ["size=3072k"],
    ),
    (
        "Sysctls",
        {"HostConfig": {"Sysctls": {"kernel.msgmax": "9000", "net.ipv4.ip_forward": "0"}}},
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward",
        ["9000", "0"],
    ),
    (
        "Dns",
        {
            "HostConfig": {
                "NetworkMode": "bridge",
                "Dns": ["192.0.2.1"],
                "DnsOptions": ["ndots:3"],
                "DnsSearch": ["a.test", "b.test"],
            }
        },
        "grep -E '^(nameserver|options|search)' /etc/resolv.conf | sort",
        ["nameserver 192.0.2.1", "options ndots:3", "search a.test b.test"],
    ),
    (
        "ExtraHosts",
        {"HostConfig": {"NetworkMode": "bridge", "ExtraHosts": ["there:192.0.2.7", "v6:2001:db8::7"]}},
        "grep -E 'there|v6' /etc/hosts",
        ["192.0.2.7\tthere", "2001:db8::7\tv6"],
    ),
]


@pytest.mark.parametrize(("body", "script", "lines"), [row[1:] for row in INSIDE], ids=[row[0] for row in INSIDE])
def test_seen_from_inside(engine: Engine, body: dict[str, Any], script: str, lines: list[str]) -> None:
    assert output(engine, body, script) == lines


def test_namespaces(engine: Engine) -> None:
    kinds = ("uts", "pid", "ipc", "net", "cgroup")

    def spaces(**host: Any) -> dict[str, bool]:
        """Which namespaces are the host's."""
        with running(engine, {"HostConfig": host}) as identity:
            inside, daemon = f"/proc/{pid_of(engine, identity)}/ns", f"/proc/{engine.daemon.pid}/ns"
            return {kind: os.readlink(f"{inside}/{kind}") == os.readlink(f"{daemon}/{kind}") for kind in kinds}

    own = spaces(CgroupnsMode="private")
    assert own == dict.fromkeys(kinds, False)
    shared = spaces(UTSMode="host", PidMode="host", IpcMode="host", NetworkMode="host", CgroupnsMode="host")
    assert shared == dict.fromkeys(kinds, True)


def test_shared_ipc_and_pid(engine: Engine) -> None:
    with running(engine, {"HostConfig": {"IpcMode": "shareable"}}) as donor, running(engine, {}) as private:
        engine.docker("exec", donor, "touch", "/dev/shm/here")
        joined = {"IpcMode": f"container:{donor}", "PidMode": f"container:{donor}"}
        lines = output(engine, {"HostConfig": joined}, "ls /dev/shm; cat /proc/1/comm")
        assert lines == ["here", "sleep"]
        identity, _ = create(engine, {"Cmd": ["true"], "HostConfig": {"IpcMode": f"container:{private}"}})
        try:
            answer = engine.api.post(f"/containers/{identity}/start")
            assert "non-shareable IPC" in answer.message
        finally:
            engine.api.delete(f"/containers/{identity}", force=1)
    assert output(engine, {"HostConfig": {"IpcMode": "none"}}, "grep -c ' /dev/shm ' /proc/mounts") == ["0"]


def test_privileged(engine: Engine) -> None:
    script = "grep CapEff /proc/self/status; mkdir -p /mnt; mount -t tmpfs x /mnt && echo mounted"
    lines = output(engine, {"HostConfig": {"Privileged": True}}, script)
    assert lines[0].split()[1] == Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    assert lines[1] == "mounted"


def test_masked_and_readonly_paths(engine: Engine) -> None:
    script = "grep -c ' /proc/sys ' /proc/mounts; grep -c ' /sys/firmware ' /proc/mounts"
    assert output(engine, {}, script) == ["1", "1"]
    assert output(engine, {"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}}, script) == ["0", "0"]
    assert output(engine, {"HostConfig": {"MaskedPaths": ["/etc/passwd"]}}, "wc -c < /etc/passwd") == ["0"]


def test_console_size(engine: Engine) -> None:
    body = {"Tty": True, "HostConfig": {"ConsoleSize": [33, 77]}}
    assert output(engine, body, "stty size") == ["33 77"]


def test_annotations(engine: Engine) -> None:
    body = {"Cmd": ["true"], "HostConfig": {"Annotations": {"some.key": "value"}}}
    identity, _ = create(engine, body)
    try:
        assert engine.api.get(f"/containers/{identity}/json").json()["HostConfig"]["Annotations"] == {
            "some.key": "value"
        }
        assert engine.api.post(f"/containers/{identity}/start").status == 204
        engine.api.post(f"/containers/{identity}/wait")
        if engine.kind != "dockerd":
            row = next(each for each in engine.api.get("/containers/json", all=1).json() if each["Id"] == identity)
            assert row["HostConfig"]["Annotations"] == {"some.key": "value"}
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_runtimes(engine: Engine) -> None:
    default = create_and_remove(engine, {})[0]["HostConfig"]["Runtime"]
    assert default in ("crun", "runc")
    assert output(engine, {"HostConfig": {"Runtime": "runc"}}, "echo fine") == ["fine"]
    answer = engine.api.post("/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": "odd"}})
    assert (answer.status, answer.message) == (400, "unknown or invalid runtime name: odd")


def test_stop_signal_and_timeout(engine: Engine) -> None:
    trap = "trap 'exit 6' USR1; trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done"
    with running(engine, {"Cmd": ["sh", "-c", trap], "StopSignal": "USR1", "StopTimeout": 60}) as identity:
        assert until(lambda: "ready" in engine.docker("logs", identity).stdout)
        assert engine.api.post(f"/containers/{identity}/stop").status == 204
        assert engine.api.get(f"/containers/{identity}/json").json()["State"]["ExitCode"] == 6
    # PID 1 ignores what it has no handler for: only the timeout ends it, and there is none to wait for.
    with running(engine, {"StopTimeout": 0}) as identity:
        assert engine.api.post(f"/containers/{identity}/stop").status == 204
        assert engine.api.get(f"/containers/{identity}/json").json()["State"]["ExitCode"] == 137


def test_log_settings(engine: Engine) -> None:
    settings = {"Type": "json-file", "Config": {"labels": "a", "env": "B", "tag": "{{.Name}}"}}
    body = {
        "Cmd": ["echo", "line"],
        "Labels": {"a": "1"},
        "Env": ["B=2"],
        "HostConfig": {"LogConfig": settings},
    }
    with running(engine, body, name="logged") as identity:
        engine.api.post(f"/containers/{identity}/wait")
        path = engine.api.get(f"/containers/{identity}/json").json()["LogPath"]
        record = json.loads(Path(path).read_text())
        assert (record["log"], record["stream"]) == ("line\n", "stdout")
        assert record["attrs"] == {"a": "1", "B": "2", "tag": "logged"}
    with running(engine, {"Cmd": ["echo", "line"], "HostConfig": {"LogConfig": {"Type": "none"}}}) as identity:
        engine.api.post(f"/containers/{identity}/wait")
        answer = engine.api.get(f"/containers/{identity}/logs", stdout=1)
        assert answer.message == "configured logging driver does not support reading"
    bad = {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"tag": "{{lower .Nope}}"}}}, "Cmd": ["true"]}
    identity = engine.api.post("/containers/create", {"Image": "busybox", **bad}).json()["Id"]
    refused = engine.api.post(f"/containers/{identity}/start")
    assert (refused.status, refused.message) == (
        500,
        "failed to create task for container: failed to initialize logging driver: template: log-tag:1:8: executing "
        '"log-tag" at <.Nope>: can\'t evaluate field Nope in type *logger.Info',
    )
    engine.api.delete(f"/containers/{identity}")


# ---- networks --------------------------------------------------------------------------------------------


def network_settings(engine: Engine, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/containers/{identity}/json").json()["NetworkSettings"]
    return found


def test_network_modes(engine: Engine) -> None:
    count = "ls /sys/class/net | wc -l"
    assert output(engine, {"HostConfig": {"NetworkMode": "none"}}, count) == ["1"]
    assert output(engine, {"HostConfig": {"NetworkMode": "default"}}, count) == ["2"]
    with running(engine, {"HostConfig": {"NetworkMode": "bridge"}}) as other:
        address = network_settings(engine, other)["Networks"]["bridge"]["IPAddress"]
        joined = output(engine, {"HostConfig": {"NetworkMode": f"container:{other}"}}, "ip -o -4 addr show eth0")
        assert f" {address}/" in joined[0]


def test_network_disabled(engine: Engine) -> None:
    body = {"NetworkDisabled": True, "HostConfig": {"NetworkMode": "bridge"}}
    assert output(engine, body, "ls /sys/class/net") == ["lo"]


def test_mac_address(engine: Engine) -> None:
    mac = "02:42:ac:11:00:77"
    bridge = {"NetworkMode": "bridge"}
    wide = {"MacAddress": mac, "HostConfig": bridge}
    assert output(engine, wide, "cat /sys/class/net/eth0/address") == [mac]
    endpoints = {"EndpointsConfig": {"bridge": {"MacAddress": mac}}}
    body = {"HostConfig": bridge, "NetworkingConfig": endpoints}
    assert output(engine, body, "cat /sys/class/net/eth0/address") == [mac]


def test_endpoint_settings(engine: Engine) -> None:
    pool = ipaddress.IPv4Network(engine.place.pool.partition("=")[2].partition(",")[0])
    *_, subnet = pool.subnets(new_prefix=26)  # networks without one lie lower
    chosen = str(subnet[27])
    settings = {"IPAM": {"Config": [{"Subnet": str(subnet)}]}}
    made = engine.api.post("/networks/create", {"Name": "fields", "Driver": "bridge", **settings})
    assert made.status == 201, made.body
    try:
        endpoint = {
            "IPAMConfig": {"IPv4Address": chosen},
            "Aliases": ["nickname"],
            "GwPriority": 1,
        }
        body: dict[str, Any] = {
            "HostConfig": {"NetworkMode": "fields"},
            "NetworkingConfig": {"EndpointsConfig": {"fields": endpoint}},
        }
        with running(engine, body) as identity:
            shown = network_settings(engine, identity)["Networks"]["fields"]
            assert shown["IPAddress"] == chosen
            assert "nickname" in shown["Aliases"]
            script = f"nslookup nickname | grep -c '{chosen}$'"
            found = output(engine, {"HostConfig": {"NetworkMode": "fields"}}, script)
            assert found == ["1"]
        bad = {**body, "NetworkingConfig": {"EndpointsConfig": {"fields": {"IPAMConfig": {"IPv4Address": "10.9.9.9"}}}}}
        answer = engine.api.post("/containers/create", {"Image": "busybox", **bad})
        assert (answer.status, answer.message.splitlines()[-1]) == (
            400,
            "no configured subnet or ip-range contain the IP address 10.9.9.9",
        )
        if engine.kind != "dockerd":
            options = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}
            body["NetworkingConfig"]["EndpointsConfig"]["fields"] = {"DriverOpts": options}
            assert output(engine, body, "cat /proc/sys/net/ipv4/conf/eth0/log_martians") == ["1"]
    finally:
        engine.api.delete("/networks/fields")


def test_files_of_the_last_run(engine: Engine) -> None:
    body = {"Cmd": ["true"], "Hostname": "boxhost", "HostConfig": {"NetworkMode": "none"}}
    with running(engine, body) as identity:
        engine.api.post(f"/containers/{identity}/wait")
        path = engine.api.get(f"/containers/{identity}/json").json()["HostsPath"]
        shown = engine.docker("cp", f"{identity}:/etc/hosts", "-").stdout
        assert Path(path).read_text() in shown
        assert "boxhost" in engine.docker("cp", f"{identity}:/etc/hostname", "-").stdout


def names_of(engine: Engine, name: str) -> list[str]:
    rows = engine.api.get(f'/containers/json?filters={{"name":["^/{name}$"]}}').json()
    return sorted(rows[0]["Names"], key=len)


def test_links(engine: Engine) -> None:
    with running(engine, {"HostConfig": {"NetworkMode": "bridge"}, "ExposedPorts": {"99/tcp": {}}}, name="target"):
        body: dict[str, Any] = {"HostConfig": {"NetworkMode": "bridge", "Links": ["target:alias"]}}
        lines = output(engine, body, "grep -c alias /etc/hosts; echo $ALIAS_NAME; echo $ALIAS_PORT")
        assert lines[0] == "1"
        assert lines[1].endswith("/alias")
        assert lines[2].startswith("tcp://")
        with running(engine, body) as identity:
            document = engine.api.get(f"/containers/{identity}/json").json()
            assert document["HostConfig"]["Links"] == [f"/target:{document['Name']}/alias"]
            assert names_of(engine, "target") == ["/target", f"{document['Name']}/alias"]
        # the list forgets the name of a container that is gone
        assert names_of(engine, "target") == ["/target"]
        made = engine.api.post("/networks/create", {"Name": "linked", "Driver": "bridge"})
        assert made.status == 201
        try:
            engine.api.post("/networks/linked/connect", {"Container": "target"})
            endpoint = {"EndpointsConfig": {"linked": {"Links": ["target:mate"]}}}
            body = {"HostConfig": {"NetworkMode": "linked"}, "NetworkingConfig": endpoint}
            assert output(engine, body, "nslookup mate >/dev/null && echo found") == ["found"]
            # what a user network links is shown by its endpoint, and asked for there
            body = {"HostConfig": {"NetworkMode": "linked", "Links": ["target:mate"]}}
            with running(engine, body) as identity:
                document = engine.api.get(f"/containers/{identity}/json").json()
                assert document["HostConfig"]["Links"] is None
                assert document["NetworkSettings"]["Networks"]["linked"]["Links"] is None
        finally:
            engine.api.post("/networks/linked/disconnect", {"Container": "target", "Force": True})
            engine.api.delete("/networks/linked")


def test_published_ports(engine: Engine) -> None:
    """`-P` and `-p` with a port of the engine's choice: a program answers behind both."""
    serve = ["sh", "-c", "while :; do echo answer | nc -l -p 80; done"]
    host = {"NetworkMode": "bridge", "PublishAllPorts": True, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}}
    if engine.kind == "dockerd":
        pytest.skip("its test engine lives in a network namespace of its own")
    with running(engine, {"Cmd": serve, "ExposedPorts": {"80/tcp": {}, "81/tcp": {}}, "HostConfig": host}) as identity:
        ports = network_settings(engine, identity)["Ports"]
        assert ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
        assert int(ports["81/tcp"][0]["HostPort"]) > 0
        port = int(ports["80/tcp"][0]["HostPort"])

        def answers() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                    return client.recv(100) == b"answer\n"
            except OSError:
                return False

        assert until(answers)


# ---- refusals --------------------------------------------------------------------------------------------

BAD: list[tuple[str, dict[str, Any], int, str]] = [
    (
        "DeviceRequests",
        {"HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}},
        0,
        'could not select device driver "" with capabilities: [[gpu]]',
    ),
    (
        "Healthcheck",
        {"Healthcheck": {"Interval": 5}},
        400,
        "Interval in Healthcheck cannot be less than 1ms",
    ),
    ("Isolation", {"HostConfig": {"Isolation": "hyperv"}}, 0, "nvalid isolation"),
    ("IOMaximumIOps", {"HostConfig": {"IOMaximumIOps": 1}}, 0, "Invalid QoS settings"),
    ("IOMaximumBandwidth", {"HostConfig": {"IOMaximumBandwidth": 1}}, 0, "Invalid QoS settings"),
    ("StorageOpt", {"HostConfig": {"StorageOpt": {"size": "1G"}}}, 0, "--storage-opt is supported only for"),
    ("VolumeDriver", {"Volumes": {"/x": {}}, "HostConfig": {"VolumeDriver": "odd"}}, 404, 'plugin "odd" not found'),
    (
        "CpuRealtime",
        {"HostConfig": {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}},
        0,
        "real-time",
    ),
]
#: What dockerd takes and forgets, and we refuse.
BAD_HERE: list[tuple[str, dict[str, Any], int, str]] = [
    ("ArgsEscaped", {"ArgsEscaped": True}, 400, "ArgsEscaped"),
    ("Cgroup", {"HostConfig": {"Cgroup": "container:x"}}, 400, "invalid cgroup mode: container:x"),
    ("UsernsMode", {"HostConfig": {"UsernsMode": "odd"}}, 400, "invalid user namespace mode: odd"),
]


@pytest.mark.parametrize(
    ("field", "body", "status", "words"), [*BAD, *BAD_HERE], ids=[row[0] for row in (*BAD, *BAD_HERE)]
)
def test_refused(engine: Engine, field: str, body: dict[str, Any], status: int, words: str) -> None:
    """At create or, where dockerd finds out later, at start."""
    if engine.kind == "dockerd" and field in [row[0] for row in BAD_HERE]:
        pytest.skip("dockerd forgets it silently")
    answer = engine.api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
    identity = answer.json().get("Id", "") if answer.status == 201 else ""
    try:
        if identity:
            answer = engine.api.post(f"/containers/{identity}/start")
        assert words in answer.message
        assert answer.status == status or (status == 0 and answer.status in (400, 500))
    finally:
        if identity:
            engine.api.delete(f"/containers/{identity}", force=1, v=1)


def test_discarded_with_a_warning(engine: Engine) -> None:
    _, warnings = create_and_remove(engine, {"HostConfig": {"CpuPercent": 5}})
    assert warnings == ["linux does not support CPU percent. Percent discarded."]
    if engine.kind != "dockerd":
        _, warnings = create_and_remove(engine, {"HostConfig": {"CpuCount": 5}})
        assert warnings == ["linux does not support CPU count. Count discarded."]
        _, warnings = create_and_remove(engine, {"HostConfig": {"KernelMemoryTCP": 16 * MIB}})
        assert "kernel memory TCP limit" in warnings[0]
        # Since 1.42 the field does not exist.
        assert create_and_remove(engine, {"HostConfig": {"KernelMemory": 16 * MIB}})[1] == []


def test_shown_as_it_was_sent(engine: Engine) -> None:
    body = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OnBuild": ["RUN x"],
        "Shell": ["/bin/sh", "-c"],
        "HostConfig": {"ContainerIDFile": "/tmp/cid"},
    }
    document, _ = create_and_remove(engine, body)
    for field in fields.SHOWN:
        part, _, name = field.partition(".")
        sent = body["HostConfig"][name] if part == "HostConfig" else body[name]  # type: ignore[index]
        assert document[part][name] == sent, field
