"""Inspect and list compared with dockerd's answers: the same fields, the same null, empty and absent, per API version.

Debian's dockerd answers in the same run. For API versions that it does not know there are recorded answers of a newer
one (`golden/inspect_list.json`, written by `record`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.api import Api
from compat_tests.support.engines import Dockerd, Engine

#: The versions of Debian's dockerd, and the newest.
VERSIONS = ("1.24", "1.41", "1.44", "1.45")
NEWEST = "1.51"
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "inspect_list.json"

#: Values that differ between two engines: only whether they are set is compared.
DIFFERS = frozenset(
    (
        *("Id", "ID", "Created", "Image", "ImageID", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Pid"),
        *("StartedAt", "FinishedAt", "Driver", "GraphDriver", "Runtime", "Bridge", "SandboxID", "SandboxKey"),
        *("EndpointID", "NetworkID", "Gateway", "IPAddress", "MacAddress", "Hostname", "SizeRw", "SizeRootFs"),
        *("IPPrefixLen", "CgroupParent"),
    )
)
ZERO_TIME = "0001-01-01T00:00:00Z"

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"Image": "busybox", "Cmd": ["sleep", "600"]},
    "process": {
        "Image": "busybox",
        "Cmd": ["sleep"],
        "Entrypoint": ["/bin/sh", "-c", "sleep 600", "two words"],
        "Env": ["A=b", "UNSET"],
        "User": "1:2",
        "WorkingDir": "/a/../b/",
        "Labels": {"x": "y", "empty": ""},
        "Hostname": "some",
        "Domainname": "dom",
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdout": True,
        "StopSignal": "SIGINT",
        "StopTimeout": 0,
        "Healthcheck": {"Test": ["NONE"]},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "OnBuild": [],
        "Shell": ["/bin/sh"],
    },
    "limits": {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "HostConfig": {
            "NetworkMode": "none",
            "Memory": 64 << 20,
            "CpuShares": 512,
            "CpuQuota": 50000,
            "CpusetCpus": "0",
            "PidsLimit": 100,
            "OomScoreAdj": 5,
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
            "DeviceCgroupRules": ["c 1:3 rwm"],
            "BlkioWeight": 0,
            "ShmSize": 1 << 20,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
    },
    "security": {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "HostConfig": {
            "NetworkMode": "host",
            "Privileged": True,
            "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["MKNOD"],
            "PidMode": "host",
            "IpcMode": "host",
            "UTSMode": "host",
            "ReadonlyRootfs": True,
            "GroupAdd": ["5"],
            "Dns": [],
            "ExtraHosts": ["a:1.2.3.4"],
            "Init": True,
            "Links": None,
        },
    },
    "mounts": {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "Volumes": {"/anonymous": {}},
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": ["/usr:/bound:ro", "named:/named"],
            "Mounts": [{"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 1 << 20}}],
            "Tmpfs": {"/other": "size=1m"},
            "MaskedPaths": [],
            "ReadonlyPaths": ["/proc/sys"],
        },
    },
    "ports": {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
        "HostConfig": {
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            "AutoRemove": True,
        },
    },
}


def plain(value: Any, key: str = "") -> Any:
    """Return the answer without the values that differ."""
    if key in DIFFERS:
        return "" if value in (None, "", 0, ZERO_TIME) else "<set>"
    if isinstance(value, dict):
        shown = {name: plain(each, name) for name, each in value.items()}
        if value.get("Type") == "volume":
            shown["Source"] = "<set>"
            if len(value.get("Name", "")) == 64:
                shown["Name"] = "<random>"
        if value.get("HostPort"):
            shown["HostPort"] = "<set>"
        if "PublicPort" in value:
            shown["PublicPort"] = "<set>"
        return shown
    if key == "MaskedPaths" and value:
        # Older dockerds show these; whether the second exists depends on the machine.
        return sorted(path for path in value if path != "/proc/interrupts" and "thermal_throttle" not in path)
    if isinstance(value, list):
        items = [plain(each) for each in value]
        # The order of mounts and ports is random.
        return sorted(items, key=json.dumps) if items and isinstance(items[0], dict) else items
    return value


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours:
                yield f"{where}.{key}: missing, dockerd says {theirs[key]!r}"
            elif key not in theirs:
                yield f"{where}.{key}: {ours[key]!r}, dockerd has no such key"
            else:
                yield from differences(ours[key], theirs[key], f"{where}.{key}")
    elif ours != theirs:
        yield f"{where}: {ours!r}, dockerd says {theirs!r}"


@contextmanager
def container(engine: Engine, name: str, body: dict[str, Any]) -> Iterator[str]:
    answer = engine.api.post("/containers/create", body, name=name)
    assert answer.status == 201, answer.body
    identity = answer.json()["Id"]
    try:
        yield identity
    finally:
        engine.api.delete(f"/containers/{identity}", force=1, v=1)
        engine.api.delete("/volumes/named", force=1)


def answers(engine: Engine, identity: str, versions: Sequence[str]) -> dict[str, Any]:
    """Return inspect and the list's row, per version."""
    found: dict[str, Any] = {}
    filters = json.dumps({"id": {identity: True}})
    for version in versions:
        api = Api(engine.resources.socket, version=version)
        found[f"{version} inspect"] = plain(api.get(f"/containers/{identity}/json").json())
        rows = api.get("/containers/json", all=1, filters=filters).json()
        assert len(rows) == 1
        # "Up Less than a second" or a second later.
        rows[0]["Status"] = rows[0]["Status"].split(" ")[0]
        found[f"{version} list"] = plain(rows[0])
    return found


def start(engine: Engine, identity: str) -> int:
    """Return the status of a start. Retry dockerd's: its runc sometimes fails on a busy host."""
    for _ in range(3):
        answer = engine.api.post(f"/containers/{identity}/start")
        if answer.status == 204 or not (isinstance(engine, Dockerd) and "reset by peer" in answer.message):
            break
    return answer.status


def answers_through_life(engine: Engine, name: str, versions: Sequence[str]) -> dict[str, Any]:
    """Return the answers about a container that is created by the request of this name, running, and killed."""
    with container(engine, f"golden-{name}", REQUESTS[name]) as identity:
        created = answers(engine, identity, versions)
        assert start(engine, identity) == 204
        running = answers(engine, identity, versions)
        stopped = {}
        if name != "ports":
            assert engine.api.post(f"/containers/{identity}/kill").status == 204
            stopped = answers(engine, identity, versions)
    return {"created": created, "running": running, "stopped": stopped}


@pytest.mark.parametrize("name", REQUESTS)
def test_inspect_and_list_equal_dockerds(engine: Engine, oracle: Dockerd, name: str) -> None:
    lines = differences(answers_through_life(engine, name, VERSIONS), answers_through_life(oracle, name, VERSIONS))
    assert not [line for line in lines if not expected(line)]


@pytest.mark.parametrize("name", REQUESTS)
def test_inspect_and_list_equal_a_newer_dockerds(engine: Engine, name: str) -> None:
    lines = differences(answers_through_life(engine, name, (NEWEST,)), json.loads(GOLDEN.read_text())[name])
    assert not [line for line in lines if not expected(line)]


def expected(line: str) -> bool:
    """Accept intended differences: the default bridge is not libnetwork's; the image store shows manifests instead of
    directories; a network's priority is shown from the version that can set it; an exited container has no sandbox, as
    in Docker 28."""
    where, _, what = line.partition(": ")
    return (
        ".GraphDriver" in where
        or where.endswith((".ImageManifestDescriptor", ".NetworkSettings.Bridge"))
        or (where.endswith(".GwPriority") and what.startswith("missing") and NEWEST not in where)
        or (where.startswith(".stopped.") and where.endswith((".SandboxID", ".SandboxKey")))
    )


def test_sizes_of_containers(engine: Engine) -> None:
    with container(engine, "sized", {"Image": "busybox", "Cmd": ["sh", "-c", "head -c 100000 /dev/zero > /x"]}) as one:
        engine.api.post(f"/containers/{one}/start")
        engine.api.post(f"/containers/{one}/wait")
        document = engine.api.get(f"/containers/{one}/json", size=1).json()
        assert document["SizeRw"] >= 100000
        assert document["SizeRootFs"] > 1000000 + document["SizeRw"]
        assert "SizeRw" not in engine.api.get(f"/containers/{one}/json").json()
        row = next(each for each in engine.api.get("/containers/json", all=1, size=1).json() if each["Id"] == one)
        assert row["SizeRw"] == document["SizeRw"]


@honours("Config.ExposedPorts")
def test_filters_of_containers(engine: Engine) -> None:
    first = {"Image": "busybox", "Cmd": ["sleep", "600"], "Labels": {"a": "1"}, "ExposedPorts": {"99/udp": {}}}
    second = {"Image": "busybox", "Cmd": ["sh", "-c", "exit 3"], "HostConfig": {"Binds": ["named:/v"]}}
    with container(engine, "first", first) as one, container(engine, "second", second) as two:
        engine.api.post(f"/containers/{one}/start")
        engine.api.post(f"/containers/{two}/start")
        engine.api.post(f"/containers/{two}/wait")

        def ids(all_: int = 1, **filters: list[str]) -> list[str]:
            named = {key.replace("_", "-"): value for key, value in filters.items()}
            answer = engine.api.get("/containers/json", all=all_, filters=json.dumps(named))
            assert answer.status == 200, answer.body
            return [row["Id"] for row in answer.json()]

        assert ids(0) == [one]
        assert ids() == [two, one]
        assert ids(name=["^/fir"]) == ids(name=["rst"]) == ids(id=[one[:12]]) == [one]
        assert ids(label=["a"]) == ids(label=["a=1"]) == ids(status=["running"]) == ids(before=["second"]) == [one]
        assert ids(exited=["3"]) == ids(status=["exited"]) == ids(since=["first"]) == ids(volume=["named"]) == [two]
        assert ids(volume=["/v"]) == [two]
        assert ids(ancestor=["busybox"]) == ids(network=["bridge"]) == ids(health=["none"]) == [two, one]
        assert ids(expose=["99/udp"]) == ids(expose=["90-100/udp"]) == [one]
        assert ids(label=["a=2"]) == ids(ancestor=["nosuch"]) == ids(publish=["80"]) == ids(is_task=["true"]) == []
        assert [row["Id"] for row in engine.api.get("/containers/json", limit=1).json()] == [two]
        for key, value, status, text in (
            ("odd", "1", 400, "invalid filter 'odd'"),
            ("status", "odd", 400, "invalid filter 'status=odd'"),
            ("health", "odd", 400, "unrecognized filter value for health: odd"),
            ("before", "nosuch", 404, "No such container: nosuch"),
        ):
            answer = engine.api.get("/containers/json", filters=json.dumps({key: [value]}))
            assert answer.error == (status, text)
        # Of several times the earliest counts; a prune accepts only one.
        moments = json.dumps({"until": ["1", "2000-01-01"]})
        assert engine.api.get("/images/json", filters=moments).json() == []
        answer = engine.api.post("/images/prune", filters=moments)
        assert answer.error == (400, "more than one until filter specified")


def test_ambiguous_prefix_is_refused(engine: Engine) -> None:
    # Seventeen containers have at most sixteen different first digits, so two share one.
    created = [engine.api.post("/containers/create", {"Image": "busybox"}).json()["Id"] for _ in range(17)]
    try:
        shared = next(one[0] for one in created if sum(other[0] == one[0] for other in created) > 1)
        answer = engine.api.get(f"/containers/{shared}/json")
        assert answer.error == (400, f"multiple IDs found with provided prefix: {shared}")
        assert engine.api.get(f"/containers/{created[0][:40]}/json").json()["Id"] == created[0]
    finally:
        for one in created:
            engine.api.delete(f"/containers/{one}")
