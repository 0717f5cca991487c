"""The specs compared with what a real dockerd (26.1.5) wrote for the same requests, scrubbed of ids and paths.

``golden/*.json``: its ``config.json`` without hooks; capabilities as one list (it writes three equal ones), empty
parts and rules that say the same twice left out. "/data" and "/srv" stand for the directories of that host.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Kind, WharfError
from engine.runtime.spec import build, caps, devices, mounts, process, resources, seccomp, security, users
from engine.runtime.spec.host import HostFacts, kernel_version
from engine.runtime.spec.input import (
    BindMount,
    Device,
    Namespaces,
    Resources,
    SpecInput,
    ThrottleDevice,
    TmpfsMount,
    Ulimit,
)
from engine.system.cgroups import CgroupLayout
from engine.system.mounts import MountInfo

GOLDEN = Path(__file__).with_name("golden")
V1 = CgroupLayout("hybrid", frozenset(("cpu", "memory")))
V2 = CgroupLayout("v2", frozenset(("cpu", "memory")))
HOST = HostFacts(kernel=(6, 18), arch="amd64", cgroups=V1, init_path="/usr/bin/docker-init")

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
# a comment
www:x:33:33::/:/bin/sh
"""
GROUP = b"root:x:0:\ndaemon:x:1:www\nwww:x:33:\nextra:x:77:www\n"


class Files:
    """The two files that a spec reads."""

    def __init__(self, passwd: bytes | None = PASSWD, group: bytes | None = GROUP) -> None:
        self.content = {"/etc/passwd": passwd, "/etc/group": group}

    def read(self, path: str) -> bytes | None:
        return self.content[path]


def etc(*, writable: bool = True) -> tuple[BindMount, ...]:
    return tuple(
        BindMount(f"/data/c/{name}", f"/etc/{name}", writable=writable, propagation="rprivate")
        for name in ("resolv.conf", "hostname", "hosts")
    )


BASE = SpecInput(
    id="ID",
    rootfs="/rootfs",
    args=("sleep", "100"),
    files=Files(),
    hostname="hostname",
    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
    mounts=etc(),
    namespaces=Namespaces(cgroup="host"),
    cgroups_path="/wharf/ID",
)

MANY = replace(
    BASE,
    user="www",
    group_add=("extra", "99"),
    resources=Resources(
        memory=100 << 20,
        memory_swap=200 << 20,
        memory_reservation=50 << 20,
        memory_swappiness=10,
        nano_cpus=500_000_000,
        cpu_shares=512,
        cpuset_cpus="0-1",
        pids_limit=50,
    ),
    ulimits=(Ulimit("core", 0, 0), Ulimit("nofile", 100, 200)),
    cap_add=("NET_ADMIN", "PERFMON"),
    cap_drop=("CHOWN",),
    no_new_privileges=True,
    readonly_rootfs=True,
    shm_size=10 << 20,
    sysctls={"net.core.somaxconn": "100"},
    device_cgroup_rules=("c 1:* r",),
    init=True,
    oom_score_adj=10,
    annotations={"a": "b"},
    hostname="foo",
    domainname="bar",
    cwd="/work",
    tty=True,
    env=(*BASE.env, "A=b"),
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
    user="5:6",
    seccomp="unconfined",
    namespaces=Namespaces("host", "host", "host", "host", "host"),
    resources=Resources(
        memory=50 << 20, memory_swap=100 << 20, cpu_period=50000, cpu_quota=20000, oom_kill_disable=True
    ),
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
    user="1:1",
    group_add=("5",),
    cap_drop=("ALL",),
    cap_add=("CHOWN",),
    devices=(Device("/dev/null", "/dev/nil", "r"),),
    readonly_rootfs=True,
    namespaces=Namespaces(network="/proc/77/ns/net", pid="/proc/77/ns/pid", cgroup="host", network_joined=True),
    cgroups_path="/foo/bar/ID",
    shm_path="/data/c/mounts/shm",
    mounts=(BindMount("/srv/shr", "/a/b", propagation="shared"), *etc(writable=False)),
)


@pytest.fixture(autouse=True)
def shared_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source lies on one shared mount, whatever this machine has."""
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
        ("privileged", replace(BASE, privileged=True)),
        ("many", MANY),
        ("host_namespaces", HOST_NAMESPACES),
        ("joined", JOINED),
    ],
)
def test_specs_equal_dockerds(name: str, inp: SpecInput) -> None:
    golden = normal(json.loads((GOLDEN / f"{name}.json").read_text()), name)
    made = normal(build.build(inp, HOST), name)
    if name == "many":  # its --device /dev/fuse, which not every machine has
        golden["linux"].pop("devices")
        fuse = [rule for rule in golden["linux"]["resources"]["devices"] if rule.get("major") != 10]
        golden["linux"]["resources"]["devices"] = fuse
    if name == "host_namespaces":
        # A bind without what lies below it: the same to the kernel, and crun does not take it for a recursive one.
        golden["mounts"]["/b1"]["options"] = ["bind", "private", "rro"]
    for part in sorted(golden.keys() | made.keys()):
        assert made.get(part) == golden.get(part), part


def test_order_of_mounts_is_by_depth_and_stable() -> None:
    inp = replace(BASE, mounts=(BindMount("/s", "/a/b/c"), TmpfsMount("/z"), BindMount("/s", "/a/b"), *etc()))
    planned, propagation = mounts.plan(inp, HOST)
    asked = [str(mount["destination"]) for mount in planned][7:]
    assert asked == ["/z", "/a/b", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/a/b/c"]
    assert propagation == ""


def test_a_mount_over_dev_replaces_what_lies_in_it() -> None:
    planned, _ = mounts.plan(replace(BASE, mounts=(BindMount("/s", "/dev/"),)), HOST)
    destinations = [mount["destination"] for mount in planned]
    assert destinations == ["/proc", "/sys", "/sys/fs/cgroup", "/dev/"]


def test_systemd_is_told_of_swap_without_memory() -> None:
    host = replace(HOST, cgroups=V2, cgroup_driver="systemd")
    for limits, found in (
        (Resources(memory=64, memory_swap=100), {"unified": {"memory.swap.max": "36"}, "memory": {"limit": 64}}),
        (Resources(memory=64, memory_swap=64), {"unified": {"memory.swap.max": "0"}, "memory": {"limit": 64}}),
        (Resources(memory_swap=-1), {"unified": {"memory.swap.max": "max"}}),
        (Resources(memory_swap=100), {"memory": {"swap": 100}}),
        (Resources(memory=64), {"memory": {"limit": 64}}),
    ):
        assert resources.build(limits, host) == found
    # whoever sets limits without systemd converts them
    plain = resources.build(Resources(memory=64, memory_swap=100), replace(HOST, cgroups=V2))
    assert plain == {"memory": {"limit": 64, "swap": 100}}


def test_cgroup_v2_leaves_out_what_it_does_not_know() -> None:
    limits = Resources(memory=1 << 30, memory_swappiness=5, oom_kill_disable=True, cpu_realtime_runtime=10)
    host = replace(HOST, cgroups=V2)
    linux: Any = build.build(replace(BASE, resources=limits, namespaces=Namespaces()), host)["linux"]
    assert linux["resources"]["memory"] == {"limit": 1 << 30}
    assert "cpu" not in linux["resources"]
    assert {"type": "cgroup"} in linux["namespaces"]


def test_block_io_limits_name_the_device() -> None:
    limits = Resources(blkio_weight=300, blkio_device_write_iops=(ThrottleDevice("/dev/null", 5),))
    linux: Any = build.build(replace(BASE, resources=limits), HOST)["linux"]
    throttle = {"major": 1, "minor": 3, "rate": 5}
    assert linux["resources"]["blockIO"] == {"weight": 300, "throttleWriteIOPSDevice": [throttle]}
    with pytest.raises(WharfError, match="no such file or directory"):
        build.build(replace(BASE, resources=Resources(blkio_device_read_bps=(ThrottleDevice("/no/disk", 5),))), HOST)


def test_privileged_has_the_hosts_devices_and_no_filter() -> None:
    spec: Any = build.build(replace(BASE, privileged=True, devices=(Device("/dev/null", "/dev/nil"),)), HOST)
    paths = [node["path"] for node in spec["linux"]["devices"]]
    assert "/dev/null" in paths
    assert "/dev/nil" in paths
    assert not any(path.startswith("/dev/pts/") for path in paths)
    for key in ("seccomp", "maskedPaths", "readonlyPaths"):
        assert key not in spec["linux"]
    filtered: Any = build.build(replace(BASE, privileged=True, seccomp='{"defaultAction":"X"}'), HOST)
    assert filtered["linux"]["seccomp"]["defaultAction"] == "X"


def test_devices_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    nodes, rules = devices.resolve(Device(str(tmp_path / "link"), "/dev/z", "rw"))
    assert (nodes[0]["path"], nodes[0]["minor"], rules[0]["access"]) == ("/dev/z", 5, "rw")
    with pytest.raises(WharfError, match='custom device "/nosuch": no such file or directory'):
        devices.resolve(Device("/nosuch", "/x"))
    with pytest.raises(WharfError, match="not a device node"):
        devices.resolve(Device(str(tmp_path), "/x"))


@pytest.mark.parametrize("text", ["c 1:3 rwm", "a *:* m", "b 8:* r"])
def test_device_cgroup_rules(text: str) -> None:
    devices.check_rule(text)
    assert devices.parse_rule(text)["type"] == text[0]


@pytest.mark.parametrize("text", ["", "c 1:3", "x 1:3 r", "c 1:3 rwmx", "c -1:3 r", "c 1:3 r\n"])
def test_device_cgroup_rules_refused(text: str) -> None:
    with pytest.raises(WharfError, match="invalid device cgroup rule format"):
        devices.check_rule(text)


def test_capabilities() -> None:
    every = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN")

    def tweak(add: tuple[str, ...], drop: tuple[str, ...], *, privileged: bool = False) -> tuple[str, ...]:
        return caps.tweak(add, drop, privileged=privileged, available=every)

    assert tweak((), ()) == caps.DEFAULT
    assert tweak(("all",), ("kill",)) == ("CAP_CHOWN", "CAP_NET_ADMIN")
    assert tweak(("cap_bpf", "CHOWN"), ("ALL",)) == ("CAP_BPF", "CAP_CHOWN")
    assert tweak((), (), privileged=True) == every
    with pytest.raises(WharfError, match='unknown capability: "CAP_FOO"'):
        tweak(("foo",), ())


@pytest.mark.parametrize(
    ("spec", "groups", "expected"),
    [
        ("", (), (0, 0, (0,))),
        ("www", (), (33, 33, (33, 1, 77))),
        ("33", ("extra", "5", "77"), (33, 33, (33, 1, 77, 77, 5))),
        ("daemon:www", (), (1, 33, (33,))),
        ("1000", (), (1000, 0, (0,))),
        ("1000:2000", (), (1000, 2000, (2000,))),
        (":77", (), (0, 77, (77,))),
    ],
)
def test_users(spec: str, groups: tuple[str, ...], expected: tuple[int, int, tuple[int, ...]]) -> None:
    user = users.lookup(spec, groups, Files())
    assert (user.uid, user.gid, user.additional_gids) == expected


@pytest.mark.parametrize(
    ("spec", "groups", "sentence"),
    [
        ("nosuch", (), "unable to find user nosuch: no matching entries in passwd file"),
        ("www:nogrp", (), "unable to find group nogrp: no matching entries in group file"),
        ("99999999999", (), "uids and gids must be in range 0-2147483647"),
        ("-5", (), "uids and gids must be in range 0-2147483647"),
        ("1:-2", (), "uids and gids must be in range 0-2147483647"),
        ("", ("nosuchg",), "Unable to find group nosuchg: no matching entries in group file"),
    ],
)
def test_users_refused(spec: str, groups: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(WharfError) as refused:
        users.lookup(spec, groups, Files())
    assert refused.value.message == sentence
    assert refused.value.kind is Kind.INTERNAL


def test_a_root_without_the_files() -> None:
    assert users.lookup("7:8", (), Files(None, None)).gid == 8
    assert users.lookup("", (), Files(None, None)) == users.User()
    with pytest.raises(WharfError, match="no matching entries in passwd"):
        users.lookup("root", (), Files(None, None))


def test_files_of_a_directory_and_of_layers(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for layer in (lower, upper):
        (layer / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("below")
    (lower / "etc/group").write_text("below")
    (upper / "etc/group").write_text("above")
    (upper / "etc/link").symlink_to("/etc/group")
    layered = users.LayeredRoot((str(upper), str(lower)))
    assert layered.read("/etc/passwd") == b"below"
    assert layered.read("/etc/group") == b"above"
    assert layered.read("/etc/absent") is None
    assert layered.read("/absent/group") is None
    with pytest.raises(users.NeedsMount):
        layered.read("/etc/link")
    directory = users.DirectoryRoot(str(upper))
    assert directory.read("/etc/link") == b"above"
    assert directory.read("/etc/passwd") is None
    assert directory.read("/etc") is None


def test_seccomp_by_capability_arch_and_kernel() -> None:
    def allowed(capabilities: tuple[str, ...], host: HostFacts = HOST) -> set[str]:
        filters: Any = seccomp.resolve("", capabilities, host)
        return {name for rule in filters["syscalls"] for name in rule["names"]}

    plain = allowed(caps.DEFAULT)
    assert not {"mount", "bpf", "reboot"} & plain
    assert {"mount", "setns", "bpf"} <= allowed((*caps.DEFAULT, "CAP_SYS_ADMIN"))
    assert "ptrace" in plain
    assert "ptrace" not in allowed(caps.DEFAULT, replace(HOST, kernel=(4, 4)))
    arm: Any = seccomp.resolve("", caps.DEFAULT, replace(HOST, arch="arm64"))
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in allowed(caps.DEFAULT, replace(HOST, arch="arm64"))
    assert seccomp.resolve("unconfined", caps.DEFAULT, HOST) is None
    assert seccomp.resolve("{}", caps.DEFAULT, HOST) is None
    assert seccomp.resolve("", caps.DEFAULT, replace(HOST, seccomp=False)) is None


@pytest.mark.parametrize(
    ("profile", "host"),
    [
        ("{bad", HOST),
        ("[]", HOST),
        ('{"syscalls":[{"name":"a","names":["b"]}]}', HOST),
        ('{"syscalls":[{"names":7}]}', HOST),
        ('{"architectures":["a"],"archMap":[{}],"defaultAction":"x"}', HOST),
        ("{}", replace(HOST, seccomp=False)),
    ],
)
def test_bad_seccomp_profiles(profile: str, host: HostFacts) -> None:
    with pytest.raises(WharfError) as refused:
        seccomp.resolve(profile, caps.DEFAULT, host)
    assert refused.value.kind is Kind.INTERNAL


def test_security_options() -> None:
    parsed = security.parse(['seccomp={"a":"b=c"}', "apparmor:x", "label=type:t", "no-new-privileges=false"])
    assert parsed == security.SecurityOptions(False, '{"a":"b=c"}', "x", ("type:t",))
    assert security.parse(["no-new-privileges"]).no_new_privileges
    assert security.parse(None) == security.SecurityOptions()
    for option, sentence in (("foo", "opt 1"), ("foo=bar", "opt 2"), ("no-new-privileges=maybe", "opt 2")):
        with pytest.raises(WharfError, match=sentence):
            security.parse([option])


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        (["A=1", "B=2"], ["B=3", "C=4"], ["A=1", "B=3", "C=4"]),
        (["A=1", "B=2"], ["A"], ["B=2"]),
        (["A=1"], ["A", "A=5"], ["A=5"]),
        ([], ["X", "Y="], ["Y="]),
    ],
)
def test_environments_merge(base: list[str], over: list[str], result: list[str]) -> None:
    assert process.merge_env(base, over) == result


def test_exec_process_keeps_the_containers_confinement() -> None:
    container: Any = build.build(replace(MANY, console_size=(24, 80)), HOST)["process"]
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
    assert container["terminal"] is True  # the container's own is untouched


def test_cgroup_paths() -> None:
    assert build.cgroups_path("x", "", "cgroupfs") == "/wharf/x"
    assert build.cgroups_path("x", "/foo/../bar/", "cgroupfs") == "/bar/x"
    assert build.cgroups_path("x", "../../etc", "cgroupfs") == "/etc/x"
    assert build.cgroups_path("x", "", "systemd") == "system.slice:docker:x"
    assert build.cgroups_path("x", "a-b.slice", "systemd") == "a-b.slice:docker:x"
    with pytest.raises(WharfError, match="valid slice"):
        build.check_cgroup_parent("/foo", "systemd")
    build.check_cgroup_parent("/foo", "cgroupfs")


def test_propagation_needs_a_mount_that_has_it() -> None:
    private = MountInfo(1, 0, "8:1", "/", "/", ("rw",), (), "ext4", "/dev/x", ())
    inp = replace(BASE, mounts=(BindMount("/src", "/d", propagation="rslave"),))
    with pytest.raises(WharfError, match="path /src is mounted on / but it is not a shared or slave mount"):
        mounts.plan(inp, HOST, find=lambda _: private)
    inp = replace(BASE, mounts=(BindMount("/src", "/d", propagation="shared"),))
    with pytest.raises(WharfError, match="path /src is mounted on / but it is not a shared mount"):
        mounts.plan(inp, HOST, find=lambda _: private)


def test_mounts_inside_proc() -> None:
    proc = MountInfo(1, 0, "0:20", "/", "/proc", ("rw",), (), "proc", "proc", ())
    disk = replace(proc, mountpoint="/", fstype="ext4")
    for bad in (BindMount("/src", "/proc//sys"), BindMount("/src", "/proc"), TmpfsMount("/proc/x", "")):
        with pytest.raises(WharfError, match="cannot be mounted because it is"):
            mounts.plan(replace(BASE, mounts=(bad,)), HOST, find=lambda _: disk)
    for good in (BindMount("/src", "/proc/uptime"), BindMount("/proc", "/proc"), BindMount("/src", "/process")):
        mounts.plan(replace(BASE, mounts=(good,)), HOST, find=lambda _: proc)


def test_shares_that_the_kernel_would_replace() -> None:
    for shares, word in ((1, "minimum"), (262_145, "maximum")):
        with pytest.raises(WharfError, match=f"the {word} allowed cpu-shares is"):
            resources.build(replace(MANY.resources, cpu_shares=shares), HOST)


def test_an_empty_home_is_the_users() -> None:
    process: Any = build.build(replace(BASE, env=("HOME=", "A=")), HOST)["process"]
    assert "A=" in process["env"]
    assert not [entry for entry in process["env"] if entry.startswith("HOME")]


def test_tmpfs_options() -> None:
    mounts.check_tmpfs_options("size=1m,mode=1777,rw,noexec")
    for bad in ("foo", "size", "user=1"):
        with pytest.raises(WharfError, match="invalid tmpfs option"):
            mounts.check_tmpfs_options(bad)


def test_kernel_versions() -> None:
    assert kernel_version("6.1.0-13-amd64") == (6, 1)
    assert kernel_version("5.15") == (5, 15)
    assert kernel_version("weird") == (0, 0)
