"""``docker node`` and docker-py's nodes."""

from __future__ import annotations

import json

import pytest
from docker import errors

from compat_tests.support.engines import Engine


def test_ls_and_inspect(swarm: Engine) -> None:
    (line,) = swarm.docker("node", "ls", "--format", "{{json .}}").stdout.splitlines()
    row = json.loads(line)
    assert [row[key] for key in ("Status", "Availability", "ManagerStatus", "Self")] == [
        "Ready",
        "Active",
        "Leader",
        True,
    ]
    assert row["TLSStatus"] == "Ready"
    (node,) = json.loads(swarm.docker("node", "inspect", "self").stdout)
    assert (node["ID"], node["Description"]["Hostname"]) == (row["ID"], row["Hostname"])
    for key in (row["Hostname"], row["ID"][:12]):
        assert json.loads(swarm.docker("node", "inspect", key).stdout) == [node]
    pretty = swarm.docker("node", "inspect", "--pretty", "self").stdout.split()
    for words in (["State:", "Ready"], ["Leader:", "Yes"], ["Issuer", "Subject:"]):
        assert words[1] in pretty[pretty.index(words[0]) :]


def test_update(swarm: Engine) -> None:
    swarm.docker("node", "update", "--label-add", "disk=ssd", "--availability", "drain", "self")
    (node,) = json.loads(swarm.docker("node", "inspect", "self").stdout)
    assert (node["Spec"]["Labels"], node["Spec"]["Availability"]) == ({"disk": "ssd"}, "drain")
    assert swarm.docker("node", "ls", "-q", "--filter", "node.label=disk").stdout.strip() == node["ID"]
    assert swarm.docker("node", "ls", "-q", "--filter", "node.label=disk=hdd").stdout == ""
    assert swarm.docker("node", "ls", "-q", "--filter", "role=worker").stdout == ""
    swarm.docker("node", "update", "--label-rm", "disk", "--availability", "active", "self")
    assert "is already a manager" in swarm.docker("node", "promote", "self").output
    refused = swarm.docker("node", "demote", "self", check=False)
    assert "attempting to demote the last manager of the swarm" in refused.output
    refused = swarm.docker("node", "rm", "--force", "self", check=False)
    assert "It must be demoted to worker before removal" in refused.output
    assert swarm.docker("node", "ps", "self").stdout.startswith("ID")


def test_docker_py(swarm: Engine) -> None:
    (node,) = swarm.client.nodes.list(filters={"role": "manager"})
    assert node.update({"Availability": "pause", "Role": "manager", "Labels": {"a": "b"}})
    node.reload()
    assert node.id is not None
    assert node.attrs["Spec"] == {"Availability": "pause", "Role": "manager", "Labels": {"a": "b"}}
    with pytest.raises(errors.APIError, match="update out of sequence"):
        swarm.client.api.update_node(node.id, 1, {"Availability": "active", "Role": "manager"})
    assert node.update({"Availability": "active", "Role": "manager"})
    with pytest.raises(errors.NotFound):
        swarm.client.nodes.get("nope")
