"""`docker info`, `version`, `system df` and `system prune`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.polling import until

# Intended differences: dockerd here does not use the containerd image store, Wharf always does; registries for foreign
# layers no longer exist; a newer dockerd does not send the last three.
DIFFERENT = {
    "/info": (
        *(".Runtimes", ".DefaultAddressPools", ".Plugins.Log", ".Warnings", ".CDISpecDirs"),
        ".RegistryConfig.AllowNondistributableArtifacts",
        *(".ExecutionDriver", ".ContainerdCommit.Expected", ".InitCommit.Expected"),
    ),
    "/version": (".Components",),
    "/system/df": (".Images[].RepoDigests", ".Images[].Labels", ".BuildCache"),
}


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return where two answers differ in keys or JSON types; of values only the types count, of lists the first
    element."""
    if type(ours) is not type(theirs):
        return [f"{path} {ours!r:.60} is no {type(theirs).__name__}"]
    if isinstance(ours, dict):
        found = [f"{path}.{key} is missing" for key in theirs.keys() - ours.keys()]
        found += [f"{path}.{key} is not dockerd's" for key in ours.keys() - theirs.keys()]
        for key in ours.keys() & theirs.keys():
            found += differences(ours[key], theirs[key], f"{path}.{key}")
        return found
    if isinstance(ours, list) and ours and theirs:
        return differences(ours[0], theirs[0], f"{path}[]")
    return []


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "1.43", "1.45"])
@pytest.mark.parametrize("path", ["/info", "/version", "/system/df"])
def test_answers_have_dockerds_shape(own_engine: Engine, oracle: Dockerd, version: str, path: str) -> None:
    # Other tests leave dangling images and build cache in dockerd.
    for what in ("images", "build"):
        assert oracle.api.post(f"/{what}/prune").status == 200
    answers = [each.api.get(f"/v{version}{path}").json() for each in (own_engine, oracle)]
    found = [line for line in differences(*answers) if not line.startswith(DIFFERENT[path])]
    assert not found


def test_info_shows_counts_and_settings(own_engine: Engine) -> None:
    def info() -> dict[str, Any]:
        found: dict[str, Any] = own_engine.api.get("/info").json()
        return found

    before = info()
    assert (before["OSType"], before["Swarm"]["LocalNodeState"]) == ("linux", "inactive")
    assert before["DriverStatus"][0] == ["driver-type", "io.containerd.snapshotter.v1"]
    assert before["DockerRootDir"] == str(own_engine.resources.root / "data")
    assert before["Containerd"]["Address"].startswith("/")
    assert {before["DefaultRuntime"], "io.containerd.runc.v2"} <= set(before["Runtimes"])
    features = before["Runtimes"][before["DefaultRuntime"]]["status"]["org.opencontainers.runtime-spec.features"]
    assert "ociVersionMax" in json.loads(features)
    names = [f"in{uuid.uuid4().hex[:8]}{number}" for number in range(3)]
    try:
        own_engine.docker("create", "--name", names[0], "busybox", "true")
        for name in names[1:]:
            own_engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
        own_engine.docker("pause", names[2])
        now = info()
        counts = [
            now[f"Containers{kind}"] - before[f"Containers{kind}"] for kind in ("", "Running", "Paused", "Stopped")
        ]
        assert counts == [3, 1, 1, 1]
        assert now["ID"] == before["ID"]
    finally:
        own_engine.docker("rm", "-f", *names)
    output = own_engine.docker("info", "--format", "{{.ServerVersion}} {{.ContainersRunning}}").stdout.split()
    assert output == [before["ServerVersion"], "0"]


def test_df_counts_disk_usage(own_engine: Engine) -> None:
    name = f"df{uuid.uuid4().hex[:8]}"
    script = "dd if=/dev/zero of=/file bs=1M count=2; dd if=/dev/zero of=/v/file bs=1M count=1; yes | head -c 600000"
    try:
        own_engine.docker("run", "--name", name, "-v", f"{name}:/v", "busybox", "sh", "-c", script)
        text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=1\n"
        own_engine.docker("build", "-q", "-t", name, "-", input=text)
        found = own_engine.api.get("/system/df").json()
        container = next(row for row in found["Containers"] if row["Names"] == [f"/{name}"])
        # Two megabytes in its layer; 600 000 bytes written make a JSON line for every two in the log.
        assert container["SizeRw"] > 2 * 1024 * 1024 + 600_000 * 20
        volume = next(row for row in found["Volumes"] if row["Name"] == name)
        assert volume["UsageData"]["RefCount"] == 1
        assert volume["UsageData"]["Size"] >= 1024 * 1024
        busybox = next(row for row in found["Images"] if "busybox:latest" in (row["RepoTags"] or []))
        assert busybox["Containers"] == 1
        assert busybox["SharedSize"] > 0
        assert found["LayersSize"] >= busybox["Size"]
        assert sum(row["Size"] for row in found["BuildCache"]) > 1024 * 1024
        assert len({row["ID"][:12] for row in found["BuildCache"]}) == len(found["BuildCache"])
        for version in ("1.30", "1.45"):
            images = own_engine.api.get(f"/v{version}/system/df").json()["Images"]
            assert next(row for row in images if row["Id"] == busybox["Id"])["Containers"] == 1
        only = own_engine.api.get("/system/df", type=["volume", "build-cache"]).json()
        assert (bool(only["Volumes"]), bool(only["BuildCache"])) == (True, True)
        assert not only.get("Images")
        assert not only.get("Containers")
        answer = own_engine.api.get("/system/df", type="nosuch")
        assert answer.error == (400, "unknown object type: nosuch")
        rows = [line.split()[0] for line in own_engine.docker("system", "df").stdout.splitlines()]
        assert rows == ["TYPE", "Images", "Containers", "Local", "Build"]
    finally:
        own_engine.docker("rm", "-f", "-v", name)
        own_engine.docker("volume", "rm", "-f", name)
        own_engine.docker("rmi", "-f", name)
        own_engine.docker("builder", "prune", "-af")


def test_system_prune(own_engine: Engine) -> None:
    name = f"pr{uuid.uuid4().hex[:8]}"
    own_engine.docker("build", "-q", "-t", name, "-", input="FROM busybox\nRUN echo x > /x\n")
    own_engine.docker("build", "-q", "-t", f"{name}:used", "-", input="FROM busybox\nRUN echo y > /y\n")
    own_engine.docker("run", "-d", "--name", f"{name}a", "-v", "/anonymous", f"{name}:used", "sleep", "1000")
    own_engine.docker("run", "--name", f"{name}b", "-v", "/anonymous", "busybox", "true")
    own_engine.docker("volume", "create", name)
    own_engine.docker("network", "create", name)
    try:
        done = own_engine.docker("system", "prune", "-a", "-f", "--volumes")
        for section in ("Deleted Containers:", "Deleted Networks:", "Deleted Volumes:", "Deleted Images:"):
            assert section in done.stdout
        assert "Deleted build cache objects:" in done.stdout
        assert f"untagged: {name}:latest" in done.stdout
        assert "Total reclaimed space:" in done.stdout
        usage = own_engine.api.get("/system/df").json()
        assert [row["Names"] for row in usage["Containers"]] == [[f"/{name}a"]]
        assert [row["RepoTags"] for row in usage["Images"]] == [[f"{name}:used"]]
        # Named volumes may still be needed; only anonymous ones are pruned.
        assert len(usage["Volumes"]) == 2
        assert name in [row["Name"] for row in usage["Volumes"]]
        assert usage["BuildCache"] == []
        own_engine.docker("exec", f"{name}a", "cat", "/y")
    finally:
        own_engine.docker("rm", "-f", "-v", f"{name}a")
        own_engine.docker("volume", "rm", name)
    own_engine.docker("system", "prune", "-a", "-f", "--volumes")

    def left_over() -> tuple[Any, Any, Any]:
        usage = own_engine.api.get("/system/df").json()
        return usage["Images"], usage["Containers"], usage["LayersSize"]

    assert until(lambda: left_over() == ([], [], 0)), left_over()
    own_engine.load_busybox()
