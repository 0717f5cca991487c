"""The specs compared with what a real dockerd (26.1.5) wrote for the same requests, scrubbed of ids and paths.

``golden/*.json``: its ``config.json`` without hooks; capabilities as one list (it writes three equal ones), empty
parts and rules that say the same twice left out. "/data" and "/srv" stand for the directories of that host.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api_models.container import HostConfig
from api_models.resources import DeviceMapping, Resources, ThrottleDevice, Ulimit
from engine.common.errors import WharfError
from engine.common.system.mounts import MountInfo
from server.containers.spec import build, caps, mounts, process, resources
from server.containers.spec.input import BindMount, Namespaces, SpecInput, TmpfsMount
from server.containers.spec.tests.samples import BASE, HOST, V2, Files, etc, with_host

GOLDEN = Path(__file__).with_name("golden")


def ulimit(name: str, soft: int, hard: int) -> Ulimit:
    return Ulimit(name=name, soft=soft, hard=hard)


MANY = replace(
    BASE,
    config=replace(BASE.config, user="www", working_dir="/work", tty=True, env=(*(BASE.config.env or ()), "A=b")),
    host=HostConfig(
        group_add=("extra", "99"),
        memory=100 << 20,
        memory_swap=200 << 20,
        memory_reservation=50 << 20,
        memory_swappiness=10,
        nano_cpus=500_000_000,
        cpu_shares=512,
        cpuset_cpus="0-1",
        pids_limit=50,
        cap_add=("NET_ADMIN", "PERFMON"),
        cap_drop=("CHOWN",),
        readonly_rootfs=True,
        shm_size=10 << 20,
        sysctls={"net.core.somaxconn": "100"},
        device_cgroup_rules=("c 1:* r",),
        oom_score_adj=10,
        annotations={"a": "b"},
    ),
    ulimits=(ulimit("core", 0, 0), ulimit("nofile", 100, 200)),
    no_new_privileges=True,
    init=True,
    hostname="foo",
    domainname="bar",
    mounts=(
        TmpfsMount("/t", "size=1m"),
        BindMount("/srv/img", "/ro", writable=False, propagation="rprivate"),
        BindMount("/srv/shr", "/sl", propagation="slave"),
        BindMount("/data/volumes/vol/_data", "/v"),
        *etc(writable=False),
    ),
)


HOST_NAMESPACES = replace(
    BASE,
    hostname="vm",
    config=replace(BASE.config, user="5:6"),
    host=replace(
        BASE.host,
        memory=50 << 20,
        memory_swap=100 << 20,
        cpu_period=50000,
        cpu_quota=20000,
        oom_kill_disable=True,
    ),
    seccomp="unconfined",
    namespaces=Namespaces("host", "host", "host", "host", "host"),
    mounts=(
        TmpfsMount("/tt"),
        TmpfsMount("/t3", "mode=700,size=1000"),
        TmpfsMount("/t5", "exec,uid=3,mode=700,noexec,exec"),
        BindMount("/srv/img", "/dev/shm", propagation="rprivate"),
        BindMount("/srv/img", "/b1", writable=False, propagation="rprivate", recursive=False),
        BindMount("/srv/shr", "/b2", writable=False, propagation="rprivate"),
        BindMount("/srv/shr", "/b3", writable=False, propagation="rprivate", read_only_non_recursive=True),
        *etc(),
    ),
)


JOINED = replace(
    BASE,
    config=replace(BASE.config, user="1:1"),
    host=replace(
        BASE.host,
        group_add=("5",),
        cap_drop=("ALL",),
        cap_add=("CHOWN",),
        devices=(DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/nil", cgroup_permissions="r"),),
        readonly_rootfs=True,
    ),
    namespaces=Namespaces(network="/proc/77/ns/net", pid="/proc/77/ns/pid", cgroup="host", network_joined=True),
    cgroups_path="/foo/bar/ID",
    shm_path="/data/c/mounts/shm",
    mounts=(BindMount("/srv/shr", "/a/b", propagation="shared"), *etc(writable=False)),
)


@pytest.fixture(autouse=True)
def shared_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates one shared mount for all sources."""
    shared = MountInfo(1, 0, "8:1", "/", "/srv", ("rw",), ("shared:1",), "ext4", "/dev/x", ())
    monkeypatch.setattr(mounts.plan, "__kwdefaults__", {"find": lambda _: shared})


def normal(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """A spec in the golden files' form."""
    spec = json.loads(json.dumps(spec))
    spec.pop("ociVersion", None)
    spec["root"].pop("path", None)
    capabilities = spec["process"].pop("capabilities", None)
    if isinstance(capabilities, dict):
        assert capabilities["bounding"] == capabilities["effective"] == capabilities["permitted"]
        capabilities = capabilities["bounding"]
    if name != "privileged":
        spec["process"]["capabilities"] = capabilities
    else:
        spec["linux"].pop("devices", None)
        spec["linux"]["resources"]["devices"] = [spec["linux"]["resources"]["devices"][-1]]
    if name in ("host_namespaces", "joined"):
        for key in ("maskedPaths", "readonlyPaths", "seccomp"):
            spec["linux"].pop(key, None)
    for rule in spec["linux"].get("seccomp", {}).get("syscalls", ()):
        rule["names"] = sorted(rule["names"])
    spec["mounts"] = {m["destination"]: {**m, "options": sorted(m["options"])} for m in spec["mounts"]}
    spec["linux"]["namespaces"] = {n["type"]: n.get("path", "") for n in spec["linux"]["namespaces"]}
    return spec


@pytest.mark.parametrize(
    ("name", "inp"),
    [
        ("default", replace(BASE, args=("sleep", "100"))),
        ("privileged", with_host(BASE, privileged=True)),
        ("many", MANY),
        ("host_namespaces", HOST_NAMESPACES),
        ("joined", JOINED),
    ],
)
def test_specs_equal_dockerds(name: str, inp: SpecInput) -> None:
    golden = normal(json.loads((GOLDEN / f"{name}.json").read_text()), name)
    made = normal(build.build(inp, HOST), name)
    if name == "many":  # it has --device /dev/fuse, which some machines lack
        golden["linux"].pop("devices")
        fuse = [rule for rule in golden["linux"]["resources"]["devices"] if rule.get("major") != 10]
        golden["linux"]["resources"]["devices"] = fuse
    if name == "host_namespaces":
        # Both forms are the same to the kernel, but crun would treat dockerd's as a recursive bind.
        golden["mounts"]["/b1"]["options"] = ["bind", "private", "rro"]
    if "maskedPaths" in golden["linux"]:
        # dockerd 28 and newer mask more paths, depending on the host; the files were recorded with 26.
        golden["linux"]["maskedPaths"] = list(build.masked_paths())
    for part in sorted(golden.keys() | made.keys()):
        assert made.get(part) == golden.get(part), part


def test_order_of_mounts_is_by_depth_and_stable() -> None:
    inp = replace(BASE, mounts=(BindMount("/s", "/a/b/c"), TmpfsMount("/z"), BindMount("/s", "/a/b"), *etc()))
    planned, propagation = mounts.plan(inp, HOST)
    asked = [str(mount["destination"]) for mount in planned][7:]
    assert asked == ["/z", "/a/b", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/a/b/c"]
    assert propagation == ""


def test_a_shared_tmpfs_keeps_its_propagation() -> None:
    """crun applies the root's propagation last, by default a recursive one; no other mount must become shared."""
    planned, propagation = mounts.plan(replace(BASE, mounts=(TmpfsMount("/t", "shared"),)), HOST)
    assert propagation == "private"
    for mount in planned:
        options = mount["options"]
        assert isinstance(options, list)
        assert ("shared" if mount["destination"] == "/t" else "private") in options
    for words in ("", "private", "slave"):
        assert mounts.plan(replace(BASE, mounts=(TmpfsMount("/t", words),)), HOST)[1] == ""


def test_a_mount_on_dev_replaces_the_mounts_below_it() -> None:
    planned, _ = mounts.plan(replace(BASE, mounts=(BindMount("/s", "/dev/"),)), HOST)
    destinations = [mount["destination"] for mount in planned]
    assert destinations == ["/proc", "/sys", "/sys/fs/cgroup", "/dev/"]


def test_systemd_gets_the_limit_of_swap_without_memory() -> None:
    host = replace(HOST, cgroups=V2, cgroup_driver="systemd")
    for limits, found in (
        (Resources(memory=64, memory_swap=100), {"unified": {"memory.swap.max": "36"}, "memory": {"limit": 64}}),
        (Resources(memory=64, memory_swap=64), {"unified": {"memory.swap.max": "0"}, "memory": {"limit": 64}}),
        (Resources(memory_swap=-1), {"unified": {"memory.swap.max": "max"}}),
        (Resources(memory_swap=100), {"memory": {"swap": 100}}),
        (Resources(memory=64), {"memory": {"limit": 64}}),
    ):
        assert resources.build(limits, host) == found
    # a runtime that writes the cgroup files itself converts them
    plain = resources.build(Resources(memory=64, memory_swap=100), replace(HOST, cgroups=V2))
    assert plain == {"memory": {"limit": 64, "swap": 100}}


def test_cgroup_v2_omits_unsupported_limits() -> None:
    inp = with_host(BASE, memory=1 << 30, memory_swappiness=5, oom_kill_disable=True, cpu_realtime_runtime=10)
    host = replace(HOST, cgroups=V2)
    linux: Any = build.build(replace(inp, namespaces=Namespaces()), host)["linux"]
    assert linux["resources"]["memory"] == {"limit": 1 << 30}
    assert "cpu" not in linux["resources"]
    assert {"type": "cgroup"} in linux["namespaces"]


def test_block_io_limits_name_the_device() -> None:
    limited = (ThrottleDevice(path="/dev/null", rate=5),)
    linux: Any = build.build(with_host(BASE, blkio_weight=300, blkio_device_write_iops=limited), HOST)["linux"]
    throttle = {"major": 1, "minor": 3, "rate": 5}
    assert linux["resources"]["blockIO"] == {"weight": 300, "throttleWriteIOPSDevice": [throttle]}
    with pytest.raises(WharfError, match="no such file or directory"):
        build.build(with_host(BASE, blkio_device_read_bps=(ThrottleDevice(path="/no/disk", rate=5),)), HOST)


def test_privileged_has_the_hosts_devices_and_no_filter() -> None:
    nil = DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/nil")
    spec: Any = build.build(with_host(BASE, privileged=True, devices=(nil,)), HOST)
    paths = [node["path"] for node in spec["linux"]["devices"]]
    assert "/dev/null" in paths
    assert "/dev/nil" in paths
    assert not any(path.startswith("/dev/pts/") for path in paths)
    for key in ("seccomp", "maskedPaths", "readonlyPaths"):
        assert key not in spec["linux"]
    filtered: Any = build.build(replace(with_host(BASE, privileged=True), seccomp='{"defaultAction":"X"}'), HOST)
    assert filtered["linux"]["seccomp"]["defaultAction"] == "X"


def test_mounts_inside_proc() -> None:
    proc = MountInfo(1, 0, "0:20", "/", "/proc", ("rw",), (), "proc", "proc", ())
    disk = replace(proc, mountpoint="/", fstype="ext4")
    for bad in (BindMount("/src", "/proc//sys"), BindMount("/src", "/proc"), TmpfsMount("/proc/x", "")):
        with pytest.raises(WharfError, match="cannot be mounted because it is"):
            mounts.plan(replace(BASE, mounts=(bad,)), HOST, find=lambda _: disk)
    for good in (BindMount("/src", "/proc/uptime"), BindMount("/proc", "/proc"), BindMount("/src", "/process")):
        mounts.plan(replace(BASE, mounts=(good,)), HOST, find=lambda _: proc)


def test_cpu_shares_out_of_range_are_refused() -> None:
    for shares, word in ((1, "minimum"), (262_145, "maximum")):
        with pytest.raises(WharfError, match=f"the {word} allowed cpu-shares is"):
            resources.build(replace(MANY.host, cpu_shares=shares), HOST)


def test_an_empty_home_is_removed() -> None:
    process: Any = build.build(replace(BASE, config=replace(BASE.config, env=("HOME=", "A="))), HOST)["process"]
    assert "A=" in process["env"]
    assert not [entry for entry in process["env"] if entry.startswith("HOME")]


def test_exec_process_keeps_the_containers_confinement() -> None:
    container: Any = build.build(with_host(MANY, console_size=(24, 80)), HOST)["process"]
    made: Any = process.exec_process(
        container, args=["id"], env=["A=1"], files=Files(), host=HOST, user="daemon", cwd=""
    )
    assert made["args"] == ["id"]
    assert made["user"] == {"uid": 1, "gid": 1, "additionalGids": [1]}
    assert made["cwd"] == "/work"
    assert made["noNewPrivileges"] is True
    assert made["capabilities"] == container["capabilities"]
    assert "terminal" not in made
    assert "consoleSize" not in made
    wide: Any = process.exec_process(
        container, args=["id"], env=[], files=Files(), host=HOST, privileged=True, tty=True, console_size=(5, 6)
    )
    assert set(wide["capabilities"]["effective"]) == set(caps.KNOWN)
    assert wide["consoleSize"] == {"height": 5, "width": 6}
    assert container["terminal"] is True  # the container's process is unchanged
