"""What a role refuses of a container."""

from dataclasses import fields

import pytest

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import UPDATABLE_FIELDS, UPDATABLE_LISTS
from engine.common.errors import WharfError
from server.access.caller import Caller
from server.access.policy import Policy
from server.containers.create import confine
from server.tests.daemon import Daemon

ALICE = 10001
POLICY = {
    "published_images": ("docker.io/library/*",),
    "users": {str(ALICE): "member", "10002": "powerful", "10003": "forced"},
    "roles": {
        "member": {"ports": "20000-20010", "disk": "1g", "capabilities": ["SYS_PTRACE"]},
        "powerful": {
            "host_namespaces": True,
            "devices": True,
            "cgroup_parent": True,
            "security_options": True,
            "plugins": True,
        },
        "forced": {"force_user": True, "binds": False},
    },
}


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    daemon.load("busybox:latest", config={"Cmd": ["sh"]})
    daemon.restrict(POLICY)
    return daemon


def test_every_field_is_decided_once() -> None:
    known = [field.name for kind in (ContainerConfig, HostConfig) for field in fields(kind)]
    decided = [*confine.CHECKED, *confine.HARMLESS, *confine.ELSEWHERE]
    assert sorted(decided) == sorted(known)


def test_update_changes_no_field_that_only_create_checks() -> None:
    checked_by_update = {"cpu_realtime_period", "cpu_realtime_runtime", *UPDATABLE_LISTS}
    assert confine.CHECKED.intersection((*UPDATABLE_FIELDS, *UPDATABLE_LISTS)) == checked_by_update


REFUSED = [
    ({"Privileged": True}, "--privileged"),
    ({"NetworkMode": "host"}, "--network host"),
    ({"PidMode": "host"}, "--pid host"),
    ({"IpcMode": "host"}, "--ipc host"),
    ({"UTSMode": "host"}, "--uts host"),
    ({"UsernsMode": "host"}, "--userns host"),
    ({"CgroupnsMode": "host"}, "--cgroupns host"),
    ({"Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg"}]}, "--device /dev/kmsg"),
    ({"DeviceCgroupRules": ["a *:* rwm"]}, "--device-cgroup-rule a *:* rwm"),
    ({"CgroupParent": "/system.slice"}, "--cgroup-parent /system.slice"),
    ({"CapAdd": ["SYS_ADMIN"]}, "--cap-add SYS_ADMIN"),
    ({"CapAdd": ["all"]}, "--cap-add all"),
    ({"Sysctls": {"kernel.pid_max": "10"}}, "--sysctl kernel.pid_max: it is not of the container's own namespaces"),
    ({"SecurityOpt": ["seccomp=unconfined"]}, "--security-opt seccomp=unconfined"),
    ({"SecurityOpt": ["seccomp={}"]}, "--security-opt seccomp=PROFILE"),
    ({"SecurityOpt": ["apparmor=unconfined"]}, "--security-opt apparmor=unconfined"),
    ({"SecurityOpt": ["writable-cgroups"]}, "--security-opt writable-cgroups"),
    ({"MaskedPaths": []}, "--security-opt systempaths=unconfined (MaskedPaths without /proc/acpi)"),
    ({"ReadonlyPaths": []}, "--security-opt systempaths=unconfined (ReadonlyPaths without /proc/bus)"),
    ({"Annotations": {"run.oci.keep_original_groups": "1"}}, "--annotation run.oci.keep_original_groups"),
    ({"OomScoreAdj": -1}, "--oom-score-adj -1"),
    ({"OomKillDisable": True}, "--oom-kill-disable"),
    ({"CpuRealtimePeriod": 10}, "--cpu-rt-period and --cpu-rt-runtime"),
    (
        {"BlkioDeviceReadBps": [{"Path": "/root/.ssh/id_rsa", "Rate": 1}]},
        "--device-read-bps /root/.ssh/id_rsa: it is no device of the host",
    ),
    ({"VolumeDriver": "nfs"}, "the volume driver nfs: it is a plugin's"),
    (
        {"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]},
        "the volume driver nfs: it is a plugin's",
    ),
    (
        {
            "Mounts": [
                {"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/etc"}}}}
            ]
        },
        "the volume option device=/etc",
    ),
    ({"Binds": ["/tmp:/x:shared"]}, "the propagation shared of the bind of /tmp"),
    (
        {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"Propagation": "rslave"}}]},
        "the propagation rslave of the bind of /tmp",
    ),
    (
        {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
        "--publish of the host port 80: its ports are 20000-20010",
    ),
    (
        {"PortBindings": {"80/tcp": [{"HostPort": "20005-20020"}]}},
        "--publish of the host port 20020: its ports are 20000-20010",
    ),
    ({"StorageOpt": {"size": "2g"}}, f"--storage-opt size=2g: its disk space is {1 << 30} bytes"),
    (
        {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "unix:///run/docker.sock"}}},
        "--log-opt syslog-address=unix:///run/docker.sock: it is a path of the host",
    ),
    ({"Runtime": "io.containerd.kata.v2"}, "--runtime io.containerd.kata.v2"),
    (
        {"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]},
        "--ulimit nofile=-1:-1: the engine's is ",
    ),
]


@pytest.mark.parametrize(("host", "what"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refused(daemon: Daemon, host: dict[str, object], what: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    status, sentence = daemon.as_uid(ALICE).refusal("POST", "/containers/create", json=body)
    assert (status, sentence.startswith(f"your role does not allow {what}")) == (403, True), sentence


ALLOWED = [
    {"CapAdd": ["SYS_PTRACE", "CAP_NET_RAW"], "CapDrop": ["ALL"]},
    {"Sysctls": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"}},
    {"SecurityOpt": ["no-new-privileges", "label=disable", "seccomp=builtin"]},
    {"PortBindings": {"80/tcp": [{"HostPort": "20000"}, {"HostPort": ""}]}},
    {"StorageOpt": None, "OomScoreAdj": 500, "Annotations": {"note": "x"}},
    {"RestartPolicy": {"Name": "always"}, "PidMode": ""},
]


@pytest.mark.parametrize("host", ALLOWED)
def test_allowed(daemon: Daemon, host: dict[str, object]) -> None:
    daemon.as_uid(ALICE).create(HostConfig=host)


def test_the_lists_of_inspect_are_allowed(daemon: Daemon) -> None:
    alice = daemon.as_uid(ALICE)
    shown = alice.get(f"/containers/{alice.create()}/json").json()["HostConfig"]
    alice.create(HostConfig={name: shown[name] for name in ("MaskedPaths", "ReadonlyPaths", "CgroupnsMode")})


def test_rights_allow_what_they_name(daemon: Daemon) -> None:
    powerful = daemon.as_uid(10002)
    for host, _ in REFUSED[1:10]:
        id = powerful.create(HostConfig=host)
        shown = powerful.get(f"/containers/{id}/json").json()["HostConfig"]
        if "host" in (shown["NetworkMode"], shown["PidMode"]):
            assert shown["UsernsMode"] == "host"
    for host, what in REFUSED[:1]:
        body = {"Image": "busybox", "HostConfig": host}
        assert powerful.refusal("POST", "/containers/create", json=body) == (403, f"your role does not allow {what}")


def test_a_forced_user(daemon: Daemon) -> None:
    forced = daemon.as_uid(10003)
    for user in ("", "10003", "10003:10003"):
        shown = forced.get(f"/containers/{forced.create(User=user)}/json").json()
        assert shown["Config"]["User"] == "10003:10003"
        assert "no-new-privileges=true" in shown["HostConfig"]["SecurityOpt"]
    status, sentence = forced.refusal("POST", "/containers/create", json={"Image": "busybox", "User": "root"})
    assert (status, sentence) == (
        403,
        "your role does not allow --user root: it runs containers as the user 10003:10003",
    )
    body = {"Image": "busybox", "HostConfig": {"Binds": ["/tmp:/x"]}}
    assert forced.refusal("POST", "/containers/create", json=body) == (
        403,
        "your role does not allow the bind of /tmp",
    )


def test_execs(daemon: Daemon) -> None:
    alice = daemon.as_uid(ALICE)
    id = alice.create()
    daemon.start(daemon.services.containers.get(id))
    body = {"Cmd": ["true"], "Privileged": True}
    assert alice.refusal("POST", f"/containers/{id}/exec", json=body) == (403, "your role does not allow --privileged")
    assert daemon.post(f"/containers/{id}/exec", body).status_code == 201


def test_updates(daemon: Daemon) -> None:
    alice = daemon.as_uid(ALICE)
    id = alice.create()
    body = {"BlkioDeviceReadBps": [{"Path": "/root/x", "Rate": 1}]}
    status, sentence = alice.refusal("POST", f"/containers/{id}/update", json=body)
    assert (status, sentence) == (
        403,
        "your role does not allow --device-read-bps /root/x: it is no device of the host",
    )


def test_a_client_without_a_uid_has_no_binds(daemon: Daemon) -> None:
    role = Policy(POLICY).roles["member"]
    caller = Caller("carol", administrator=False, role=role, user="carol")
    host = HostConfig(binds=("/tmp:/x",))
    with pytest.raises(WharfError, match="the bind of /tmp by a client that has no uid"):
        confine.check_create(daemon.services.containers.context, caller, ContainerConfig(), host)
