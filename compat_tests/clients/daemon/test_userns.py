"""`userns-remap`: containers' ids are mapped to other host ids, in processes, volumes, copies, images and builds."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support import engines
from compat_tests.support.engines import Wharf
from compat_tests.support.host.subids import COUNT, FIRST, USER, subordinate_ids

DOCKERFILE = """FROM busybox
RUN cat /proc/self/uid_map && echo made > /made && chown 3:4 /made
COPY --chown=5:6 f /copied
RUN --mount=type=cache,target=/cache touch /cache/x && stat -c '%u:%g of %n' /cache/x /made /copied
"""
#: The classic builder has no mounts.
CLASSIC = DOCKERFILE.replace("--mount=type=cache,target=/cache", "mkdir /cache &&")


@pytest.fixture(scope="module")
def ranges() -> Iterator[None]:
    """Assign subordinate ids to the user `daemon` in the host's files during these tests."""
    with subordinate_ids():
        yield


@pytest.fixture(scope="module")
def mapped(ranges: None) -> Iterator[Wharf]:
    with engines.wharf("userns", "--userns-remap", USER) as engine:
        engine.load_busybox()
        yield engine


def root_of(engine: Wharf) -> Path:
    return engine.resources.root / "data" / f"{FIRST}.{FIRST}"


def owner(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def members(archive: bytes) -> dict[str, tuple[int, int]]:
    """Return names and owners in a tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {item.name: (item.uid, item.gid) for item in tar}


def pid_of(engine: Wharf, name: str) -> int:
    return int(engine.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)


def test_processes_and_their_files(mapped: Wharf) -> None:
    name = mapped.docker("run", "-d", "-u", "5:6", "busybox", "sleep", "1000").stdout.strip()
    try:
        pid = pid_of(mapped, name)
        assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), str(COUNT)]
        assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", str(FIRST), str(COUNT)]
        assert owner(Path(f"/proc/{pid}")) == (FIRST + 5, FIRST + 6)
        # The container's root may change its own files, and its output belongs to it.
        script = "id -u && touch /x && chown 7:8 /x && echo more >> /etc/hosts && echo said > /dev/stdout"
        assert mapped.docker("exec", "-u", "0", name, "sh", "-c", script).stdout == "0\nsaid\n"
        seen = Path(f"/proc/{pid}/root")
        assert owner(seen / "x") == (FIRST + 7, FIRST + 8)
        assert owner(seen / "bin/sh") == owner(seen / "etc/hosts") == (FIRST, FIRST)
    finally:
        mapped.docker("rm", "-f", name)
    assert mapped.docker("run", "--rm", "-t", "busybox", "sh", "-c", "echo to > $(tty)").stdout.strip() == "to"
    assert owner(root_of(mapped)) == (0, FIRST)
    info = mapped.api.get("/info").json()
    assert "name=userns" in info["SecurityOptions"]
    assert info["DockerRootDir"] == str(root_of(mapped))


def test_network_namespaces_belong_to_the_mapped_root(mapped: Wharf) -> None:
    script = "ip link set lo down && ip addr show eth0 && ls /sys/class/net"
    done = mapped.docker("run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script).stdout
    assert done.split()[-2:] == ["eth0", "lo"]
    donor = mapped.docker("run", "-d", "--ipc", "shareable", "busybox", "sleep", "1000").stdout.strip()
    try:
        mapped.restart()  # the donor then belongs to an earlier run of the daemon
        shared = [f"--{kind}=container:{donor}" for kind in ("network", "ipc", "pid")]
        script = "touch /dev/shm/x && stat -c %u /dev/shm && ip addr show eth0 && ps"
        done = mapped.docker("run", "--rm", *shared, "busybox", "sh", "-c", script).stdout
        assert done.startswith("0\n")
        assert "sleep 1000" in done
    finally:
        mapped.docker("rm", "-f", donor)
    assert mapped.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").stdout == "lo\n"


def test_volumes_and_binds(mapped: Wharf) -> None:
    made = mapped.resources.root / "made" / "below"
    script = "touch /v/x /b/x && chown 9:9 /v/x && stat -c %u:%g /v /v/hosts.copied"
    mapped.docker("build", "-q", "-t", "withvolume", "-", input=(
        "FROM busybox\nRUN mkdir /v && touch /v/hosts.copied && chown 2:3 /v/hosts.copied\nVOLUME /v\n"
    ))  # fmt: skip
    done = mapped.docker(
        "run", "--rm", "-v", "vmapped:/v", "-v", f"{made}:/b", "withvolume", "sh", "-c", script
    ).stdout  # fmt: skip
    assert done.split() == ["0:0", "2:3"]
    data = root_of(mapped) / "volumes" / "vmapped" / "_data"
    assert owner(data) == (FIRST, FIRST)
    assert owner(data / "x") == (FIRST + 9, FIRST + 9)
    assert owner(data / "hosts.copied") == (FIRST + 2, FIRST + 3)
    assert owner(made) == owner(made.parent) == owner(made / "x") == (FIRST, FIRST)
    # A directory of the host's root is inaccessible inside.
    closed = mapped.resources.root / "closed"
    closed.mkdir(mode=0o700)
    refused = mapped.docker("run", "--rm", "-v", f"{closed}:/b", "busybox", "ls", "/b", check=False)
    assert "Permission denied" in refused.stderr
    mapped.docker("volume", "rm", "vmapped")
    mapped.docker("rmi", "withvolume")


@pytest.mark.parametrize("running", [True, False])
def test_copies_diff_export_commit(mapped: Wharf, *, running: bool, tmp_path: Path) -> None:
    name = mapped.docker("run", "-d", "-v", "/v", "busybox", "sleep", "1000").stdout.strip()
    try:
        mapped.docker("exec", name, "sh", "-c", "touch /made /v/made && chown 11:12 /made /v/made && rm /bin/vi")
        if not running:
            mapped.docker("kill", name)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for where in ("new/deep/f", "v/f"):
                item = tarfile.TarInfo(where)
                item.uid, item.gid, item.mode, item.size = 33, 34, 0o4755, 1
                tar.addfile(item, io.BytesIO(b"x"))
        mapped.docker("cp", "-", f"{name}:/", input=stream.getvalue())

        def copied(path: str) -> dict[str, tuple[int, int]]:
            return members(mapped.api.get(f"/containers/{name}/archive?path={path}").body)

        assert copied("/made") == {"made": (11, 12)}
        assert copied("/new") == {"new": (0, 0), "new/deep": (0, 0), "new/deep/f": (33, 34)}
        assert copied("/v") == {"v": (0, 0), "v/f": (33, 34), "v/made": (11, 12)}
        too_high = io.BytesIO()
        with tarfile.open(fileobj=too_high, mode="w") as tar:
            item = tarfile.TarInfo("high")
            item.uid = COUNT
            tar.addfile(item)
        refused = mapped.docker("cp", "-", f"{name}:/", input=too_high.getvalue(), check=False)
        assert "cannot be mapped to a host id" in refused.stderr
        changes = mapped.docker("diff", name).stdout.splitlines()
        assert {"D /bin/vi", "A /made", "A /new/deep/f"} <= set(changes)
        exported = members(mapped.api.get(f"/containers/{name}/export").body)
        assert (exported["made"], exported["new/deep/f"]) == ((11, 12), (33, 34))
        mapped.docker("commit", name, "committed")
        script = "stat -c %u:%g:%a /new/deep/f /made; ls /bin/vi 2>/dev/null"
        assert mapped.docker("run", "--rm", "committed", "sh", "-c", script, check=False).stdout.split() == [
            "33:34:4755", "11:12:644",
        ]  # fmt: skip
        mapped.docker("rmi", "committed")
    finally:
        mapped.docker("rm", "-f", "-v", name)


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_builds_with_mapped_ids(mapped: Wharf, buildkit: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE if buildkit == "1" else CLASSIC)
    (tmp_path / "f").write_text("f")
    env = {"DOCKER_BUILDKIT": buildkit, "BUILDKIT_PROGRESS": "plain"}
    done = mapped.docker("build", "--no-cache", "-t", "built", str(tmp_path), env=env)
    output = done.stdout + done.stderr
    assert str(FIRST) in output
    for line in ("0:0 of /cache/x", "3:4 of /made", "5:6 of /copied"):
        assert line in output
    assert mapped.docker("run", "--rm", "built", "stat", "-c", "%u:%g", "/made", "/copied").stdout.split() == [
        "3:4",
        "5:6",
    ]
    body = {
        "Image": "busybox",
        "Cmd": ["stat", "-c", "%u:%g", "/img/copied"],
        "HostConfig": {"Mounts": [{"Type": "image", "Source": "built", "Target": "/img"}], "NetworkMode": "none"},
    }
    inspected = mapped.api.post("/v1.48/containers/create", body).json()["Id"]
    assert mapped.docker("start", "-a", inspected).stdout.strip() == "5:6"
    mapped.docker("rm", inspected)
    mapped.docker("rmi", "built")


@honours("HostConfig.UsernsMode")
def test_host_ids_on_request(mapped: Wharf) -> None:
    script = "cat /proc/self/uid_map; stat -c %u /proc/1"
    done = mapped.docker("run", "--rm", "--userns", "host", "--privileged", "busybox", "sh", "-c", script).stdout
    assert done.split() == ["0", "0", "4294967295", "0"]
    name = mapped.docker("run", "-d", "--userns", "host", "busybox", "sleep", "1000").stdout.strip()
    try:
        assert owner(Path(f"/proc/{pid_of(mapped, name)}/root/bin/sh")) == (0, 0)
        mapped.docker("exec", name, "sh", "-c", "touch /x && chown 5 /x")
        assert members(mapped.api.get(f"/containers/{name}/archive?path=/x").body) == {"x": (5, 0)}
        assert mapped.api.get(f"/containers/{name}/json").json()["HostConfig"]["UsernsMode"] == "host"
    finally:
        mapped.docker("rm", "-f", name)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Privileged": True}, "privileged mode is incompatible with user namespaces"),
        ({"NetworkMode": "host"}, "cannot share the host's network namespace when user namespaces are enabled"),
        ({"PidMode": "host"}, "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_incompatible_options_are_refused(mapped: Wharf, host: dict[str, object], words: str) -> None:
    answer = mapped.api.post("/containers/create", {"Image": "busybox", "HostConfig": host})
    assert (answer.status, words in answer.json()["message"]) == (400, True), json.dumps(answer.json())


def test_mapped_ids_on_a_stock_containerd(ranges: None) -> None:
    with (
        engines.stock_containerd("usernsd") as containerd,
        engines.wharf("usernsc", "--userns-remap", USER, containerd=containerd) as engine,
    ):
        engine.load_busybox()
        name = engine.docker("run", "-d", "busybox", "sleep", "1000").stdout.strip()
        assert owner(Path(f"/proc/{pid_of(engine, name)}")) == (FIRST, FIRST)
        script = "touch /made && chown 5:6 /made && echo said > /dev/stdout"
        assert engine.docker("exec", name, "sh", "-c", script).stdout == "said\n"
        engine.docker("exec", "-u", "5", name, "true")
        assert owner(Path("/dev/null")) == (0, 0)
        engine.docker("commit", name, "committed")
        engine.docker("rm", "-f", name)
        assert engine.docker("run", "--rm", "committed", "stat", "-c", "%u:%g", "/made").stdout.strip() == "5:6"
