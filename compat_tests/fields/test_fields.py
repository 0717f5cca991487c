"""Every field of a create request has an effect in a container, or is refused by name. See matrix.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import OPERATIONAL, honours, proofs, refuses, shows
from compat_tests.support.api import Api
from compat_tests.support.containers import MIB, create, create_and_remove, output, pid_of, running, spec_of
from compat_tests.support.engines import Engine
from compat_tests.support.images import ROOT
from compat_tests.support.polling import until

# ---- the matrix itself -----------------------------------------------------------------------------------


def model_fields() -> set[str]:
    """The request fields of the models, by Docker's names (read from a process of its own: a black box's words)."""
    script = (
        "from api_models.container import ContainerConfig, HostConfig\n"
        "from api_models.network import EndpointSettings\n"
        "from api_models.record import body_of\n"
        "named = {'Config': ContainerConfig, 'HostConfig': HostConfig, 'Endpoint': EndpointSettings}\n"
        "for name, record in named.items():\n"
        "    for attribute, field in body_of(record).model_fields.items():\n"
        "        print(f'{name}.{field.alias or attribute}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_each_field_has_its_test() -> None:
    found = proofs()
    assert found.keys() | OPERATIONAL == model_fields()
    assert not found.keys() & OPERATIONAL
    assert {field: kinds for field, kinds in found.items() if len(kinds) > 1} == {}


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
        "CgroupPermissions",
        {
            "HostConfig": {
                "Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"}]
            }
        },
        ": > /dev/mine",
        ["sh: can't create /dev/mine: Operation not permitted"],
    ),
    (
        "DeviceCgroupRules",
        # No driver has the majors 240 and 241: the kernel finds no device where the cgroup allows access.
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
@honours(
    "Config.Domainname",
    "HostConfig.Devices",
    "HostConfig.DeviceCgroupRules",
    "HostConfig.Dns",
    "HostConfig.DnsOptions",
    "HostConfig.DnsSearch",
    "HostConfig.ExtraHosts",
    "HostConfig.GroupAdd",
    "HostConfig.ShmSize",
    "HostConfig.Sysctls",
)
def test_effect_inside_the_container(engine: Engine, body: dict[str, Any], script: str, lines: list[str]) -> None:
    assert output(engine, body, script) == lines


@honours("HostConfig.CgroupnsMode", "HostConfig.UTSMode")
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


@honours("HostConfig.IpcMode", "HostConfig.PidMode")
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


@honours("HostConfig.Privileged")
def test_privileged_container(engine: Engine) -> None:
    script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; mkdir -p /mnt; mount -t tmpfs x /mnt && echo mounted"
    script += "; grep -c ' /proc/sys ' /proc/mounts; ls /dev/kmsg"
    lines = output(engine, {"HostConfig": {"Privileged": True}}, script)
    assert lines[0].split()[1] == Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    assert lines[1:] == ["Seccomp:\t0", "mounted", "0", "/dev/kmsg"]


@honours("HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths")
def test_masked_and_readonly_paths(engine: Engine) -> None:
    script = "grep -c ' /proc/sys ' /proc/mounts; grep -c ' /sys/firmware ' /proc/mounts"
    assert output(engine, {}, script) == ["1", "1"]
    assert output(engine, {"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}}, script) == ["0", "0"]
    assert output(engine, {"HostConfig": {"MaskedPaths": ["/etc/passwd"]}}, "wc -c < /etc/passwd") == ["0"]


def test_mounts_of_newer_versions(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("new in API 1.46 and 1.48")
    mounts = [
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["exec"]]}},
        {"Type": "image", "Source": "busybox", "Target": "/i", "ImageOptions": {"Subpath": "etc"}},
    ]
    script = "grep ' /t ' /proc/mounts | grep -c noexec; ls /i | grep passwd"
    assert output(engine, {"HostConfig": {"Mounts": mounts}}, script) == ["0", "passwd"]


@honours("HostConfig.ConsoleSize")
def test_console_size(engine: Engine) -> None:
    body = {"Tty": True, "HostConfig": {"ConsoleSize": [33, 77]}}
    assert output(engine, body, "stty size") == ["33 77"]


@honours("HostConfig.Annotations")
def test_annotations(engine: Engine) -> None:
    annotations = {"some.key": "value"}
    if engine.kind == "wharf":
        with running(engine, {"HostConfig": {"Annotations": annotations}}) as identity:
            assert spec_of(engine, identity)["annotations"].items() >= annotations.items()
    body = {"Cmd": ["true"], "HostConfig": {"Annotations": annotations}}
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


@honours("HostConfig.Runtime")
def test_runtime_is_selected_by_name(engine: Engine) -> None:
    default = create_and_remove(engine, {})[0]["HostConfig"]["Runtime"]
    assert default in ("crun", "runc")
    assert output(engine, {"HostConfig": {"Runtime": "runc"}}, "echo fine") == ["fine"]
    for name in {"runc", default} if engine.kind == "wharf" else ():
        with running(engine, {"HostConfig": {"Runtime": name}}) as identity:
            (state,) = engine.resources.root.glob(f"run/containerd/runtime/*/*/{identity}")
            assert state.parts[-3] == name
    answer = engine.api.post("/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": "odd"}})
    assert answer.error == (400, "unknown or invalid runtime name: odd")


@honours("Config.StopSignal", "Config.StopTimeout")
def test_stop_signal_and_timeout(engine: Engine) -> None:
    trap = "trap 'exit 6' USR1; trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done"
    with running(engine, {"Cmd": ["sh", "-c", trap], "StopSignal": "USR1", "StopTimeout": 60}) as identity:
        assert until(lambda: "ready" in engine.docker("logs", identity).stdout)
        assert engine.api.post(f"/containers/{identity}/stop").status == 204
        assert engine.api.get(f"/containers/{identity}/json").json()["State"]["ExitCode"] == 6
    # The process would exit by itself before the default timeout.
    slow = "trap 'sleep 8; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with running(engine, {"Cmd": ["sh", "-c", slow], "StopTimeout": 0}) as identity:
        assert until(lambda: "ready" in engine.docker("logs", identity).stdout)
        assert engine.api.post(f"/containers/{identity}/stop").status == 204
        assert engine.api.get(f"/containers/{identity}/json").json()["State"]["ExitCode"] == 137


@honours("HostConfig.LogConfig")
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
    assert refused.error == (
        500,
        "failed to create task for container: failed to initialize logging driver: template: log-tag:1:8: executing "
        '"log-tag" at <.Nope>: can\'t evaluate field Nope in type *logger.Info',
    )
    engine.api.delete(f"/containers/{identity}")


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
    ("IOMaximumIOps", {"HostConfig": {"IOMaximumIOps": 1}}, 0, "QoS"),
    ("IOMaximumBandwidth", {"HostConfig": {"IOMaximumBandwidth": 1}}, 0, "QoS"),
    ("StorageOpt", {"HostConfig": {"StorageOpt": {"size": "1G"}}}, 0, "--storage-opt is supported only for"),
    ("VolumeDriver", {"Volumes": {"/x": {}}, "HostConfig": {"VolumeDriver": "odd"}}, 404, 'plugin "odd" not found'),
    (
        "CpuRealtime",
        {"HostConfig": {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}},
        0,
        "real-time",
    ),
]
#: Fields that dockerd accepts and ignores, and Wharf refuses.
REFUSED_BY_WHARF: list[tuple[str, dict[str, Any], int, str]] = [
    ("ArgsEscaped", {"ArgsEscaped": True}, 400, "ArgsEscaped"),
    ("Cgroup", {"HostConfig": {"Cgroup": "container:x"}}, 400, "invalid cgroup mode: container:x"),
    ("UsernsMode", {"HostConfig": {"UsernsMode": "odd"}}, 400, "invalid user namespace mode: odd"),
]


@pytest.mark.parametrize(
    ("field", "body", "status", "words"), [*BAD, *REFUSED_BY_WHARF], ids=[row[0] for row in (*BAD, *REFUSED_BY_WHARF)]
)
@refuses(
    "Config.ArgsEscaped",
    "HostConfig.Cgroup",
    "HostConfig.Isolation",
    "HostConfig.IOMaximumIOps",
    "HostConfig.IOMaximumBandwidth",
)
def test_unsupported_values_are_refused(
    engine: Engine, field: str, body: dict[str, Any], status: int, words: str
) -> None:
    """At create, or at start if dockerd also validates the field there."""
    if engine.kind == "dockerd" and field in [row[0] for row in REFUSED_BY_WHARF]:
        pytest.skip("dockerd ignores it silently")
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


@refuses("HostConfig.CpuCount", "HostConfig.CpuPercent", "HostConfig.KernelMemoryTCP", "HostConfig.KernelMemory")
def test_discarded_with_a_warning(engine: Engine) -> None:
    _, warnings = create_and_remove(engine, {"HostConfig": {"CpuPercent": 5}})
    assert warnings == ["linux does not support CPU percent. Percent discarded."]
    if engine.kind != "dockerd":
        _, warnings = create_and_remove(engine, {"HostConfig": {"CpuCount": 5}})
        assert warnings == ["linux does not support CPU count. Count discarded."]
        old = Api(engine.resources.socket, version="1.51")
        body = {"Image": "busybox", "HostConfig": {"KernelMemoryTCP": 16 * MIB}}
        created = old.post("/containers/create", body).json()
        assert "kernel memory TCP limit" in created["Warnings"][0]
        old.delete(f"/containers/{created['Id']}")
        # The fields do not exist since 1.52 and 1.42.
        for name in ("KernelMemoryTCP", "KernelMemory"):
            assert create_and_remove(engine, {"HostConfig": {name: 16 * MIB}})[1] == []


@shows(
    "Config.AttachStderr", "Config.AttachStdin", "Config.AttachStdout", "Config.OnBuild", "HostConfig.ContainerIDFile"
)
def test_metadata_is_shown_unchanged(engine: Engine) -> None:
    body = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OnBuild": ["RUN x"],
        "Shell": ["/bin/sh", "-c"],
        "HostConfig": {"ContainerIDFile": "/tmp/cid"},
    }
    document, _ = create_and_remove(engine, body)
    shown = {**document["Config"], "HostConfig": {"ContainerIDFile": document["HostConfig"]["ContainerIDFile"]}}
    assert shown.items() >= body.items()
