"""``docker secret`` and ``docker config``, and docker-py's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from docker import errors

from compat_tests.support.engines import Engine

NOUNS = pytest.mark.parametrize("noun", ["secret", "config"])


@NOUNS
def test_from_create_to_remove(swarm: Engine, noun: str, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)))
    id = swarm.docker(noun, "create", "-l", "a=b", "--template-driver", "golang", "one", str(content)).stdout.strip()
    (shown,) = json.loads(swarm.docker(noun, "inspect", "one").stdout)
    assert shown["ID"] == id
    assert (shown["Spec"]["Labels"], shown["Spec"]["Templating"]) == ({"a": "b"}, {"Name": "golang"})
    assert ("Data" in shown["Spec"]) == (noun == "config")
    swarm.docker(noun, "create", "two", "-", input="x")
    assert swarm.docker(noun, "ls", "--format", "{{.Name}}").stdout.split() == ["one", "two"]
    assert swarm.docker(noun, "ls", "-q", "--filter", "label=a").stdout.split() == [id]
    refused = swarm.docker(noun, "create", "one", "-", input="x", check=False)
    assert f"rpc error: code = AlreadyExists desc = {noun} one already exists" in refused.output
    assert swarm.docker(noun, "rm", "one", id[:10], check=False).stdout.split()[0] == "one"
    assert swarm.docker(noun, "rm", "two").stdout.split() == ["two"]
    assert swarm.docker(noun, "ls", "-q").stdout == ""


def test_a_config_shows_its_data(swarm: Engine) -> None:
    swarm.docker("config", "create", "settings", "-", input="key = value\n")
    assert "key = value" in swarm.docker("config", "inspect", "--pretty", "settings").stdout
    swarm.docker("config", "rm", "settings")


def test_the_largest(swarm: Engine, tmp_path: Path) -> None:
    content = tmp_path / "content"
    for noun, limit in (("secret", 512000), ("config", 1024000)):
        content.write_bytes(b"x" * limit)
        refused = swarm.docker(noun, "create", "large", str(content), check=False)
        assert f"{noun} data must be larger than 0 and less than {limit} bytes" in refused.output
        content.write_bytes(b"x" * (limit - 1))
        swarm.docker(noun, "create", "large", str(content))
        swarm.docker(noun, "rm", "large")


def test_docker_py_secrets(swarm: Engine) -> None:
    client = swarm.client
    secret = client.secrets.create(name="password", data=b"hidden", labels={"a": "b"})
    assert secret.id is not None
    assert secret.name == "password"
    assert [each.id for each in client.secrets.list(filters={"names": ["password"]})] == [secret.id]
    found = client.secrets.get(secret.id)
    assert "Data" not in found.attrs["Spec"]
    with pytest.raises(errors.APIError, match="already exists") as conflict:
        client.secrets.create(name="password", data=b"x")
    assert conflict.value.status_code == 409
    found.remove()
    with pytest.raises(errors.NotFound):
        client.secrets.get(secret.id)


def test_docker_py_configs(swarm: Engine) -> None:
    client = swarm.client
    config = client.configs.create(name="settings", data="héllo".encode(), labels={"a": "b"})
    assert config.id is not None
    assert client.configs.get(config.id).attrs["Spec"]["Data"] == "aMOpbGxv"
    assert [each.name for each in client.configs.list(filters={"name": ["settings"]})] == ["settings"]
    config.remove()
    assert client.configs.list() == []


@NOUNS
def test_events(swarm: Engine, noun: str) -> None:
    since = swarm.api.get("/info").json()["SystemTime"]
    swarm.docker(noun, "create", "event", "-", input="x")
    swarm.docker(noun, "rm", "event")
    until = swarm.api.get("/info").json()["SystemTime"]
    shown = swarm.docker(
        "events", "--since", since, "--until", until, "--filter", f"type={noun}", "--format", "{{json .}}"
    ).stdout
    found = [json.loads(line) for line in shown.splitlines()]
    assert [(each["Action"], each["scope"], each["Actor"]["Attributes"]) for each in found] == [
        ("create", "swarm", {"name": "event"}),
        ("remove", "swarm", {"name": "event"}),
    ]
