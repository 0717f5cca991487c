"""Volumes and mounts: `-v` and `--mount` in every form, copy-up, `--volumes-from`, the volume commands."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, docker_archive, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.plugins import VolumePlugin

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    engine.docker("volume", "create", "data")
    yield "data"
    engine.docker("volume", "rm", "-f", "data")


def sh(engine: Engine, *options: str, script: str, check: bool = True) -> str:
    done = engine.docker(*RUN, *options, "busybox", "sh", "-c", script, check=check)
    return done.stdout.strip() if check else done.output


@pytest.mark.core
@honours("HostConfig.Mounts")
def test_a_named_volume_keeps_what_is_written(engine: Engine, volume: str) -> None:
    sh(engine, "-v", "data:/d", script="echo kept > /d/file")
    assert sh(engine, "--mount", "type=volume,src=data,dst=/d,readonly", script="cat /d/file") == "kept"
    assert "Read-only file system" in sh(engine, "-v", "data:/d:ro", script="touch /d/x", check=False)
    options = "type=volume,src=data,dst=/d,volume-subpath=sub"
    sh(engine, "-v", "data:/d", script="mkdir /d/sub && echo below > /d/sub/f")
    assert sh(engine, "--mount", options, script="cat /d/f") == "below"
    missing = engine.docker(*RUN, "--mount", options + "x", "busybox", "true", check=False)
    assert missing.status in (125, 127)
    assert "no such file or directory" in missing.stderr
    # The image's files at the mount point are copied into the volume; links are resolved within the volume.
    sh(engine, "-v", "data:/d", script="mkdir /d/empty && ln -s / /d/out")
    assert "passwd" in sh(engine, "--mount", "type=volume,src=data,dst=/etc,volume-subpath=empty", script="ls /etc")
    assert "passwd" in sh(engine, "-v", "data:/d", script="ls /d/empty")
    escaping = "type=volume,src=data,dst=/d,volume-subpath=out"
    refused = engine.docker(*RUN, "--mount", escaping, "busybox", "true", check=False)
    assert "path concatenation escapes the base directory, base: " in refused.stderr


def test_a_mounts_volume_has_its_labels(engine: Engine) -> None:
    try:
        sh(engine, "--mount", "type=volume,src=labelled,dst=/d,volume-label=a=b", script="true")
        assert engine.docker("volume", "inspect", "labelled", "-f", "{{.Labels}}").stdout.strip() == "map[a:b]"
    finally:
        engine.docker("volume", "rm", "-f", "labelled")


@pytest.mark.core
@honours("HostConfig.Binds")
def test_bind_mounts(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert sh(engine, "-v", f"{tmp_path}:/d:ro", script="cat /d/file; touch /d/x || true") == "text"
    made = tmp_path / "made" / "here"
    assert sh(engine, "-v", f"{made}:/d", script="touch /d/x; stat -c %u:%a /d") == "0:755"
    assert (made / "x").exists()
    absent = tmp_path / "absent"
    done = engine.docker(*RUN, "--mount", f"type=bind,src={absent},dst=/d", "busybox", "true", check=False)
    assert done.status == 125
    assert f'invalid mount config for type "bind": bind source path does not exist: {absent}' in done.stderr
    done = engine.docker(*RUN, "-v", f"{tmp_path}:/d", "-v", "/tmp:/d", "busybox", "true", check=False)
    assert "Duplicate mount point: /d" in done.stderr
    # A single file, and nested mounts, whatever the order of the options.
    file = f"{tmp_path / 'file'}:/d/inner"
    assert sh(engine, "-v", file, "-v", f"{made}:/d", script="cat /d/inner; ls /d | tr '\\n' ' '") == "textinner x"


def test_propagation_and_recursion(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(source), str(source)], check=True, timeout=60)
    try:
        subprocess.run(["mount", "--make-rshared", str(source)], check=True, timeout=60)
        subprocess.run(["mount", "-t", "tmpfs", "test", str(source / "inner")], check=True, timeout=60)
        (source / "inner" / "deep").write_text("x")
        assert sh(engine, "-v", f"{source}:/d", script="ls /d/inner") == "deep"
        alone = f"type=bind,src={source},dst=/d,bind-recursive=disabled"
        assert sh(engine, "--mount", alone, script="ls /d/inner") == ""
        # Read-only applies to mounts below, too.
        assert "Read-only" in sh(engine, "-v", f"{source}:/d:ro", script="touch /d/inner/y", check=False)
        script = "touch /d/inner/y && echo below; touch /d/y || echo refused"
        upper = f"type=bind,src={source},dst=/d,readonly,bind-recursive=writable"
        assert sh(engine, "--mount", upper, script=script).splitlines() == ["below", "refused"]
        all_of_it = f"type=bind,src={source},dst=/d,readonly,bind-propagation=rprivate,bind-recursive=readonly"
        assert sh(engine, "--mount", all_of_it, script=script) == "refused"
        flags = sh(engine, "-v", f"{source}:/d:shared", script="grep ' /d ' /proc/self/mountinfo")
        assert " shared:" in flags
        assert " master:" in sh(engine, "-v", f"{source}:/d:rslave", script="grep ' /d ' /proc/self/mountinfo")
    finally:
        subprocess.run(["umount", "-R", str(source)], check=True, timeout=60)


def test_bind_options_of_the_api(engine: Engine, tmp_path: Path) -> None:
    def start(**mount: Any) -> str:
        bind = {"Type": "bind", "Source": str(tmp_path / "made" / "here"), "Target": "/d", **mount}
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Mounts": [bind]}}
        answer = engine.api.post("/containers/create", body)
        if answer.status != 201:
            return answer.message
        identity = answer.json()["Id"]
        try:
            answer = engine.api.post(f"/containers/{identity}/start")
            return "" if answer.status == 204 else answer.message
        finally:
            engine.api.delete(f"/containers/{identity}", force=1)

    assert "bind source path does not exist" in start()
    assert start(BindOptions={"CreateMountpoint": True}) == ""
    assert (tmp_path / "made" / "here").is_dir()
    both = {"ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": True, "Propagation": "rprivate"}
    assert "conflict" in start(ReadOnly=True, BindOptions=both)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_propagation_of_a_tmpfs(engine: Engine, runtime: str) -> None:
    if runtime not in engine.api.get("/info").json()["Runtimes"]:
        pytest.skip(f"needs {runtime}")
    for word, field in (("shared", "shared:"), ("unbindable", "unbindable"), ("slave", "-")):
        script = "awk '$5 == \"/t\" {print $7}' /proc/self/mountinfo"
        assert sh(engine, "--runtime", runtime, "--tmpfs", f"/t:{word}", script=script).startswith(field), word


@honours("HostConfig.Tmpfs")
def test_tmpfs_options_and_shadowed_volumes(engine: Engine) -> None:
    script = "grep ' /t ' /proc/mounts; stat -c %a /t"
    line, mode = sh(engine, "--tmpfs", "/t:size=1m,mode=1700", script=script).splitlines()
    assert {"size=1024k", "nosuid", "nodev", "noexec"} <= set(line.split()[3].split(","))
    assert mode == "1700"
    mount = "type=tmpfs,dst=/t,tmpfs-size=2097152,tmpfs-mode=0711"
    line, mode = sh(engine, "--mount", mount, script=script).splitlines()
    assert "size=2048k" in line.split()[3].split(",")
    assert mode == "711"
    # It replaces an anonymous volume at the same path, which then isn't created.
    body = {"Image": "busybox", "Volumes": {"/t": {}}, "HostConfig": {"Tmpfs": {"/t": ""}}}
    identity = engine.api.post("/containers/create", body).json()["Id"]
    try:
        assert engine.api.get(f"/containers/{identity}/json").json()["Mounts"] == []
    finally:
        engine.api.delete(f"/containers/{identity}", v=1)


@pytest.mark.core
def test_image_content_is_copied_to_an_empty_volume(engine: Engine, volume: str) -> None:
    script = "stat -c %a /etc; cat /etc/passwd | head -1; ls -l /bin/ls | wc -l"
    plain = sh(engine, script=script)
    assert sh(engine, "-v", "data:/etc", script=script) == plain
    sh(engine, "-v", "data:/etc", script="rm /etc/passwd")
    assert "No such file" in sh(engine, "-v", "data:/etc", script="cat /etc/passwd", check=False)
    engine.docker("volume", "create", "bare")
    try:
        assert sh(engine, "-v", "bare:/home2:nocopy", script="ls /home2") == ""
        assert (
            sh(engine, "--mount", "type=volume,src=bare,dst=/etc,volume-nocopy", script="ls /etc/passwd || true") == ""
        )
    finally:
        engine.docker("volume", "rm", "bare")


@honours("Config.Volumes", "HostConfig.VolumesFrom")
def test_a_volume_of_the_image_and_volumes_from(engine: Engine) -> None:
    layers = [busybox_layer(), layer({"data/file": "from the image"})]
    archive = docker_archive("withvolume:1", layers, Cmd=["sleep", "600"], Volumes={"/data": {}})
    engine.docker("load", "-q", input=archive)
    identity = engine.docker("run", "-d", "--network", "none", "-v", "/more", "withvolume:1").stdout.strip()
    try:
        mounts = {m["Destination"]: m for m in engine.api.get(f"/containers/{identity}/json").json()["Mounts"]}
        assert set(mounts) == {"/data", "/more"}
        anonymous = mounts["/data"]["Name"]
        assert len(anonymous) == 64
        assert sh(engine, "--volumes-from", f"{identity}:ro", script="cat /data/file; touch /data/x || true") == (
            "from the image"
        )
        labels = engine.api.get(f"/volumes/{anonymous}").json()["Labels"]
        assert labels == {"com.docker.volume.anonymous": ""}
        # The last container with a volume at that path counts, and only its volume is in use.
        second = engine.docker("create", "--network", "none", "withvolume:1").stdout.strip()
        hidden = engine.api.get(f"/containers/{second}/json").json()["Mounts"][0]["Name"]
        both = ("--volumes-from", second, "--volumes-from", identity)
        assert sh(engine, *both, script="cat /data/file") == "from the image"
        engine.docker("rm", "-v", second)
        assert engine.api.get(f"/volumes/{hidden}").status == 404
        in_use = engine.api.delete(f"/volumes/{anonymous}")
        assert in_use.error == (409, f"remove {anonymous}: volume is in use - [{identity}]")
    finally:
        engine.docker("rm", "-f", "-v", identity)
        engine.docker("rmi", "withvolume:1")
    assert engine.api.get(f"/volumes/{anonymous}").status == 404


def test_driver_options_are_mounted_while_the_volume_is_used(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    options = ("--opt", "type=none", "--opt", f"device={tmp_path}", "--opt", "o=bind,ro")
    engine.docker("volume", "create", *options, "bound")
    engine.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m", "memory")
    try:
        point = engine.api.get("/volumes/bound").json()["Mountpoint"]
        memory = engine.api.get("/volumes/memory").json()["Mountpoint"]
        assert sh(engine, "-v", "bound:/d", script="cat /d/file; touch /d/x || true") == "bound"
        identity = engine.docker(
            *("run", "-d", "--network", "none", "-v", "memory:/m", "busybox", "sh", "-c", "touch /m/x; sleep 600")
        ).stdout.strip()
        assert until(lambda: os.path.exists(f"{memory}/x"))
        # A second container sees the same file system, which is unmounted with the last one.
        assert sh(engine, "-v", "memory:/m", script="ls /m") == "x"
        assert os.path.ismount(memory)
        engine.docker("rm", "-f", identity)
        assert until(lambda: not os.path.ismount(memory))
        assert until(lambda: not os.path.ismount(point))
    finally:
        engine.docker("volume", "rm", "bound", "memory")
    assert (tmp_path / "file").read_text() == "bound"


def test_the_volume_commands(engine: Engine) -> None:
    created = engine.api.post("/volumes/create", {"Name": "one", "Labels": {"a": "b"}})
    assert created.status == 201
    try:
        inspected = created.json()
        assert set(inspected) == {"CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"}
        assert (inspected["Driver"], inspected["Labels"], inspected["Options"], inspected["Scope"]) == (
            "local",
            {"a": "b"},
            None,
            "local",
        )
        assert engine.api.post("/volumes/create", {"Name": "one"}).json() == inspected
        assert engine.api.get("/volumes/one").json() == inspected

        def names(**filters: list[str]) -> list[str]:
            answer = engine.api.get("/volumes", filters=json.dumps(filters)).json()
            assert answer["Warnings"] is None
            return [found["Name"] for found in answer["Volumes"]]

        assert names(label=["a=b"]) == names(name=["on"]) == names(driver=["local"], dangling=["true"]) == ["one"]
        assert names(label=["a=c"]) == names(driver=["odd"]) == []
        for body, status, text in BAD_VOLUMES:
            answer = engine.api.post("/volumes/create", body)
            assert answer.error == (status, text)
        answer = engine.api.get("/volumes", filters='{"odd": ["1"]}')
        assert answer.error == (400, "invalid filter 'odd'")
        answer = engine.api.delete("/volumes/nosuch")
        assert answer.error == (404, "get nosuch: no such volume")
        assert engine.api.delete("/volumes/nosuch", force=1).status == 204
        # Named volumes are pruned only with the filter all.
        assert engine.api.post("/volumes/prune").json() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
        pruned = engine.api.post("/volumes/prune", filters='{"all": ["true"], "label": ["a"]}').json()
        assert pruned["VolumesDeleted"] == ["one"]
    finally:
        engine.api.delete("/volumes/one", force=1)


BAD_VOLUMES: list[tuple[dict[str, Any], int, str]] = [
    (
        {"Name": "a"},
        400,
        "create a: volume name is too short, names should be at least two alphanumeric characters",
    ),
    (
        {"Name": "a/b"},
        400,
        'create a/b: "a/b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
        "allowed. If you intended to pass a host directory, use absolute path",
    ),
    (
        {"Name": "ab", "Driver": "odd"},
        404,
        'create ab: error looking up volume plugin odd: plugin "odd" not found',
    ),
    ({"Name": "ab", "DriverOpts": {"odd": "1"}}, 400, 'create ab: invalid option: "odd"'),
    ({"Name": "ab", "DriverOpts": {"type": "1"}}, 400, 'create ab: missing required option: "device"'),
]


def test_hanging_file_system_blocks_only_its_users(engine: Engine, tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    hung = tmp_path / "hung"
    hung.mkdir()
    # No process answers the kernel's requests, as with a server that hangs.
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    mount = ["mount", "-i", "-t", "fuse", "-o", options, "hung", str(hung)]
    done = subprocess.run(mount, pass_fds=[fuse], capture_output=True, timeout=60, check=False)
    if done.returncode:
        os.close(fuse)
        pytest.skip(f"no FUSE here: {done.stderr!r}")
    try:
        engine.docker(
            *("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", f"device={hung}/x", "hung")
        )
        waiting = [("-v", f"{hung}/a:/d"), ("--mount", f"type=bind,src={hung}/b,dst=/d"), ("-v", "hung:/d")] * 4
        clients = [engine.popen(*RUN, *options, "busybox", "true") for options in waiting]
        try:
            assert sh(engine, script="echo there") == "there"
            assert engine.api.get("/_ping").status == 200
            assert [client.poll() for client in clients] == [None] * len(clients)
        finally:
            os.close(fuse)  # the kernel now knows that the server is gone
            fuse = -1
            for client in clients:
                with client:
                    client.communicate(timeout=90)
        assert [client.returncode for client in clients] == [125] * len(clients)
    finally:
        if fuse >= 0:
            os.close(fuse)
        subprocess.run(["umount", "-l", str(hung)], check=True, timeout=60)
        engine.docker("volume", "rm", "hung")


@pytest.mark.core
@honours("HostConfig.VolumeDriver")
def test_a_volume_plugin(engine: Engine, tmp_path: Path) -> None:
    name = f"wharf-volumes-{engine.kind}-{os.getpid()}"
    theirs = {"Name": "theirs", "Driver": name, "Labels": None, "Options": None, "Scope": "global"}
    theirs |= {"Mountpoint": f"{tmp_path}/theirs", "CreatedAt": "2024-05-06T07:08:09Z"}
    with VolumePlugin(engine, name, tmp_path) as plugin:
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "file").write_text("from elsewhere")

        def names(*filters: str) -> list[str]:
            options = [word for each in filters for word in ("--filter", each)]
            return engine.docker("volume", "ls", "-q", *options).stdout.split()

        # The plugin's own volumes are listed; their status is shown by inspect only.
        assert names(f"driver={name}") == ["theirs"]
        inspected = engine.api.get("/volumes/theirs").json()
        assert inspected.pop("Status") == {"kept": "in a directory"}
        assert inspected == theirs
        assert name in engine.api.get("/info").json()["Plugins"]["Volume"]
        assert plugin.mounted == {}
        # A name that the plugin knows refers to its volume, even without the driver's name.
        keeping = ("run", "-d", "--network", "none", "-v", "theirs:/t", "busybox")
        box = engine.docker(*keeping, "sh", "-c", "cp /t/file /t/copy; sleep 600").stdout.strip()
        try:
            assert until(lambda: (tmp_path / "theirs" / "copy").exists())
            assert (tmp_path / "theirs" / "copy").read_text() == "from elsewhere"
            point = engine.api.get(f"/containers/{box}/json").json()["Mounts"][0]
            assert (point["Name"], point["Driver"], point["Source"]) == ("theirs", name, f"{tmp_path}/theirs")
            assert len(plugin.mounted["theirs"]) == 1
            assert names(f"driver={name}", "dangling=false") == ["theirs"]
            refused = engine.docker("volume", "rm", "theirs", check=False)
            assert "volume is in use" in refused.stderr
        finally:
            engine.docker("rm", "-f", box)
        assert until(lambda: not plugin.mounted["theirs"])
        assert sh(engine, "--mount", f"type=volume,src=made,dst=/m,volume-driver={name}", script="touch /m/x") == ""
        assert (tmp_path / "made" / "x").exists()
        # The container's VolumeDriver applies to its volumes without a driver; anonymous ones are removed again.
        seen = sh(
            engine, "--volume-driver", name, "-v", "/anonymous", script="grep ' /anonymous ' /proc/self/mountinfo"
        )
        assert str(tmp_path) in seen
        assert until(lambda: sorted(os.listdir(tmp_path)) == ["made", "theirs"])
        assert names(f"driver={name}") == ["made", "theirs"]
        # Its volumes are never pruned; they can be removed even if they were never used here.
        (tmp_path / "unused").mkdir()
        engine.docker("volume", "prune", "-a", "-f")
        assert engine.docker("volume", "rm", "made", "theirs", "unused").stdout.split() == ["made", "theirs", "unused"]
        assert os.listdir(tmp_path) == []
        missing = engine.api.get("/volumes/theirs")
        assert missing.error == (404, "get theirs: no such volume")


def test_a_failed_create_leaves_no_volume(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd keeps the named volume of a failed create")
    body = {
        "Image": "busybox",
        "Cmd": ["true"],
        "Volumes": {"/a": {}},
        "HostConfig": {"Binds": ["fresh:/b", "fresh:/b"], "NetworkMode": "none"},
    }
    answer = engine.api.post("/containers/create", body)
    assert answer.error == (400, "Duplicate mount point: /b")
    assert engine.api.get("/volumes").json()["Volumes"] == []
