"""Secrets and configs as files."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.node import NodeDescription
from api_models.swarm.secret import ConfigReference, FileTarget, RuntimeTarget, SecretReference
from engine.common.errors import Kind, WharfError
from engine.common.system import mounts
from server.swarm.agent.dispatcher import Payload
from server.swarm.agent.files import PrivateFile, PrivateFiles, payloads
from server.swarm.agent.tests.fakes import FakeDispatcher, make_task
from server.swarm.model.objects import Task

NODE = NodeDescription(hostname="lab1")


def _secret(id: str, name: str, uid: str = "0", mode: int = 0o444) -> SecretReference:
    return SecretReference(secret_id=id, secret_name=id, file=FileTarget(name=name, uid=uid, gid="0", mode=mode))


def _config(id: str, name: str) -> ConfigReference:
    return ConfigReference(config_id=id, config_name=id, file=FileTarget(name=name, uid="0", gid="5", mode=0o440))


def _task(**container: object) -> Task:
    task = make_task("t1")
    assert task.spec.container_spec is not None
    spec = replace(task.spec.container_spec, **container)  # type: ignore[arg-type]
    return replace(task, spec=replace(task.spec, container_spec=spec))


def _get(task: Task, **data: Payload) -> list[PrivateFile]:
    dispatcher = FakeDispatcher()
    dispatcher.secrets = {id: payload for id, payload in data.items() if id.startswith("s")}
    dispatcher.configs = {id: payload for id, payload in data.items() if id.startswith("c")}
    return asyncio.run(payloads(task, NODE, dispatcher))


def test_targets_owners_and_modes() -> None:
    task = _task(
        secrets=(_secret("s1", "pw", uid="33", mode=0o100400), _secret("s2", "/abs/key"), _secret("s3", "sub/x")),
        configs=(_config("c1", "app.conf"), _config("c2", "/etc/a/b"), ConfigReference(runtime=RuntimeTarget())),
    )
    plain = {id: Payload(id.encode(), template=False) for id in ("s1", "s2", "s3", "c1", "c2")}
    assert _get(task, **plain) == [
        PrivateFile("/run/secrets/pw", 33, 0, 0o400, b"s1"),
        PrivateFile("/abs/key", 0, 0, 0o444, b"s2"),
        PrivateFile("/run/secrets/sub/x", 0, 0, 0o444, b"s3"),
        PrivateFile("/app.conf", 0, 5, 0o440, b"c1"),
        PrivateFile("/etc/a/b", 0, 5, 0o440, b"c2"),
    ]


def test_no_data_is_in_a_representation() -> None:
    assert "hunter2" not in repr(PrivateFile("/a", 0, 0, 0, b"hunter2"))


def test_payloads_that_are_templates() -> None:
    task = _task(
        env=("NAME={{.Task.Name}}",),
        secrets=(_secret("s1", "pw"),),
        configs=(_config("c1", "app.conf"), _config("c2", "other")),
    )
    text = b'{{.Service.Name}} {{env "NAME"}}{{env "NONE"}} {{secret "pw"}} {{config "other"}} {{.Node.Hostname}}\xff'
    files = _get(
        task,
        s1=Payload(b"hunter2\xfe", template=False),
        c1=Payload(text, template=True),
        c2=Payload(b"{{not.a.template}}", template=False),
    )
    assert files[1].data == b"web web.1.t1 hunter2\xfe {{not.a.template}} lab1\xff"
    assert files[2].data == b"{{not.a.template}}"


@pytest.mark.parametrize("text", [b"hunter2 {{", b'{{ "hunter2" | nosuch }}', b'hunter2 {{ secret "none" }}'])
def test_the_error_of_a_template_has_none_of_its_text(text: bytes) -> None:
    with pytest.raises(WharfError) as caught:
        _get(_task(secrets=(_secret("s1", "pw"),)), s1=Payload(text, template=True))
    assert caught.value.message.startswith("failed to expand templated secret s1: template: expansion:1")
    assert "hunter2" not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_secret_that_does_not_exist() -> None:
    with pytest.raises(WharfError) as caught:
        _get(_task(secrets=(_secret("s1", "pw"),)))
    assert (caught.value.kind, caught.value.message) == (Kind.NOT_FOUND, "secret s1 not found")


def test_an_invalid_owner() -> None:
    with pytest.raises(WharfError, match=r"strconv\.Atoi"):
        _get(_task(secrets=(_secret("s1", "pw", uid="root"),)), s1=Payload(b"", template=False))


@pytest.mark.root
def test_files_are_on_a_tmpfs_of_the_task(tmp_path: Path) -> None:
    files = PrivateFiles(tmp_path)
    assert asyncio.run(files.write("none", ())) == {}
    secret = PrivateFile("/run/secrets/pw", 33, 44, 0o440, b"hunter2")
    path = Path(asyncio.run(files.write("t1", [secret]))["/run/secrets/pw"])
    found = path.stat()
    assert (path.read_bytes(), found.st_mode & 0o7777, found.st_uid, found.st_gid) == (b"hunter2", 0o440, 33, 44)
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    mount = mounts.mount_of(str(path))
    assert mount is not None
    assert (mount.mountpoint, mount.fstype) == (str(path.parent), "tmpfs")
    # The next daemon writes them anew.
    made = asyncio.run(PrivateFiles(tmp_path).write("t1", [PrivateFile("/b", 0, 0, 0o400, b"2")]))
    assert Path(made["/b"]).read_bytes() == b"2"
    asyncio.run(files.write("t2", [PrivateFile("/b", 0, 0, 0o400, b"x" * 500_000)]))
    asyncio.run(files.sweep(["t2"]))
    assert [Path(each.mountpoint).name for each in mounts.mounts_under(str(tmp_path))] == ["t2"]
    asyncio.run(files.remove("t2"))
    asyncio.run(files.remove("t2"))
    assert mounts.mounts_under(str(tmp_path)) == []
    assert os.listdir(tmp_path / "swarm/tasks") == []
