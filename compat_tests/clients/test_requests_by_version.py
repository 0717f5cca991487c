"""How dockerd interprets a create request from clients of each version, by field: defaults, null, empty, absent."""

from __future__ import annotations

from typing import Any

import pytest

from compat_tests.clients.test_inspect_list import VERSIONS, differences, expected, plain
from compat_tests.support.api import Api
from compat_tests.support.engines import Dockerd, Engine

HOSTS: dict[str, dict[str, Any] | None] = {
    "absent": None,
    "empty": {
        **{name: [] for name in ("Binds", "CapAdd", "CapDrop", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts")},
        **{name: [] for name in ("GroupAdd", "SecurityOpt", "Ulimits", "Devices", "DeviceRequests", "Links")},
        **{name: [] for name in ("DeviceCgroupRules", "Mounts", "MaskedPaths", "ReadonlyPaths", "VolumesFrom")},
        **{name: {} for name in ("Sysctls", "Tmpfs", "PortBindings", "StorageOpt", "Annotations", "LogConfig")},
        **dict.fromkeys(("NetworkMode", "IpcMode", "PidMode", "UTSMode", "UsernsMode", "CgroupnsMode", "Runtime"), ""),
        "ConsoleSize": [0, 0],
        "RestartPolicy": {},
    },
    "null": {
        **dict.fromkeys(("Binds", "CapAdd", "CapDrop", "Dns", "ExtraHosts", "Links", "GroupAdd", "Ulimits")),
        **dict.fromkeys(("Sysctls", "Tmpfs", "PortBindings", "Annotations", "Devices", "MaskedPaths", "Mounts")),
        **dict.fromkeys(("Memory", "PidsLimit", "OomKillDisable", "Init", "MemorySwappiness", "ConsoleSize")),
    },
    "numbers": {
        "Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20, "MemorySwappiness": 60, "PidsLimit": -1,
        "NanoCpus": 500_000_000, "CpuShares": 2, "CpusetMems": "0", "OomKillDisable": False, "OomScoreAdj": -5,
        "ShmSize": 0, "Init": False, "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1 << 20}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/null", "Rate": 10}], "KernelMemoryTCP": 0,
    },
    "modes": {
        "IpcMode": "shareable", "PidMode": "host", "UTSMode": "host", "CgroupnsMode": "host", "UsernsMode": "host",
        "NetworkMode": "none", "Isolation": "default", "ContainerIDFile": "/x/y", "CgroupParent": "",
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined", "label=disable"], "CapAdd": ["ALL"],
        "CapDrop": ["net_raw", "CAP_KILL"], "GroupAdd": ["0", "users"], "Annotations": {"a": "b"},
        "ReadonlyRootfs": True,
        "LogConfig": {"Type": "local", "Config": {"mode": "non-blocking", "max-buffer-size": "1m"}},
        "RestartPolicy": {"Name": "unless-stopped"}, "Sysctls": {"kernel.shm_rmid_forced": "1"},
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "", "CgroupPermissions": ""}],
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}], "VolumeDriver": "local",
    },
    "mounts": {
        "Binds": ["named:/v:ro", "/tmp:/t", "/etc/hostname:/h:z", "/usr:/r:ro,rprivate"],
        "Tmpfs": {"/memory": ""},
        "Mounts": [
            {"Type": "bind", "Source": "/usr", "Target": "/b1", "ReadOnly": True},
            {"Type": "bind", "Source": "/", "Target": "/b2", "ReadOnly": True, "BindOptions": {"NonRecursive": True}},
            {"Type": "bind", "Source": "/usr", "Target": "/b3", "BindOptions": {}},
            {"Type": "volume", "Source": "named", "Target": "/n", "VolumeOptions": {"NoCopy": True}},
            {"Type": "tmpfs", "Target": "/tf", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 448}},
        ],
    },
    "network": {
        "PortBindings": {"80/tcp": [{"HostPort": ""}], "81": [{"HostIp": "::1", "HostPort": "0"}]},
        "PublishAllPorts": True, "Dns": ["1.1.1.1"], "DnsOptions": ["ndots:2"], "DnsSearch": ["a.b"],
        "ExtraHosts": ["a:1.2.3.4", "b:host-gateway"],
    },
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "strings": {"Cmd": "a b", "Entrypoint": ""},
    "empty-config": {
        "Cmd": [],
        "Entrypoint": ["x"],
        "Env": [],
        "Labels": {},
        "Volumes": {},
        "ExposedPorts": {},
        "Shell": [],
    },
    "null-config": {"Cmd": None, "Env": None, "Labels": None, "Volumes": None, "ExposedPorts": None, "OnBuild": None},
    "health": {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 10**9, "StartInterval": 2 * 10**9}},
    "no-health": {"Healthcheck": {}, "StopSignal": "9", "StopTimeout": 5, "Volumes": {"/q": {}}},
    "terminal": {"Tty": True, "AttachStdin": True, "OpenStdin": True, "User": "nobody:nogroup", "WorkingDir": "/x/"},
    "without-network": {"NetworkDisabled": True, "Hostname": "a.b.c", "ExposedPorts": {"1/sctp": {}}},
}


def created(engine: Engine, version: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to create, and inspect's answer to a client of that version."""
    api = Api(engine.resources.socket, version=version)
    answer = api.post("/containers/create", {"Image": "busybox", **body}, name="by-version")
    found = {"status": answer.status, "answer": plain(answer.json())}
    if answer.status == 201:
        identity = answer.json()["Id"]
        found["inspect"] = plain(api.get(f"/containers/{identity}/json").json())
        engine.api.delete(f"/containers/{identity}", force=1, v=1)
    engine.api.delete("/volumes/named", force=1)
    return found


@pytest.mark.parametrize("name", [*HOSTS, *CONFIGS])
def test_create_requests_are_read_as_by_dockerd(engine: Engine, oracle: Dockerd, name: str) -> None:
    if name in CONFIGS:
        body = CONFIGS[name]
    else:
        host = HOSTS[name]
        body = {"Cmd": ["true"]} if host is None else {"Cmd": ["true"], "HostConfig": host}
    found = []
    for version in VERSIONS:
        ours, theirs = (created(each, version, body) for each in (engine, oracle))
        found += [f"{version}{line}" for line in differences(ours, theirs) if not expected(line)]
    assert not found, "\n".join(found)
