"""What the administrator of a swarm of three managers does rarely: lock it, rotate its root, save and restore it, and
go on when its quorum is lost.

The tests need hosts of their own, because they change what the hosts are, and they go on from one to the next.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.hosts.group import hosts
from compat_tests.support.hosts.host import Host
from compat_tests.support.hosts.swarm import PORT, Swarm, agree, info, listed, nodes, running, settles

ENCRYPTED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online."
    " Make sure more than half of the managers are online."
)


@pytest.fixture(scope="module", autouse=True)
def wharf_only(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--engine") == "dockerd":
        pytest.skip("the files of a swarm and the programs that save them are Wharf's and etcd's")


@pytest.fixture(scope="module")
def managers() -> Iterator[Swarm]:
    """Three hosts; the first one has a swarm of its own with a service."""
    with hosts(3) as three:
        swarm, first = Swarm(three, managers=3), three[0]
        first.docker("swarm", "init", "--advertise-addr", first.address, "--dispatcher-heartbeat", "1s")
        first.docker("service", "create", "-d", "--name", "web", "--init", "busybox", "sleep", "1000")
        assert settles(lambda: bool(running([first], "web")[first.name]))
        yield swarm


def _config(host: Host, name: str) -> None:
    assert settles(lambda: host.docker("config", "create", name, "-", input=name, check=False).status == 0)


def _configs(host: Host) -> set[str]:
    return {name for _, name in listed(host, "config")}


def test_the_directory_of_a_stopped_manager_is_a_backup(managers: Swarm, tmp_path: Path) -> None:
    first = managers.first
    directory = first.data / "swarm"
    first.docker("secret", "create", "kept", "-", input="kept-secret")
    _config(first, "before")
    first.daemon.stop()
    shutil.copytree(directory, tmp_path / "copy")
    first.start()
    _config(first, "after")
    first.daemon.stop()
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "copy", directory)
    first.start()
    assert settles(lambda: _configs(first) == {"before"})
    container = running([first], "web")[first.name]
    assert len(container) == 1
    # The data key was in the copy: secrets can be opened.
    first.docker("service", "create", "-d", "--name", "reader", "--secret", "kept", "busybox", "sleep", "1000")
    assert settles(lambda: bool(running([first], "reader")[first.name]))
    (reader,) = running([first], "reader")[first.name]
    assert first.docker("exec", reader, "cat", "/run/secrets/kept").stdout == "kept-secret"
    assert running([first], "web")[first.name] == container
    first.docker("service", "rm", "reader")


def test_a_locked_manager_waits_for_the_unlock_key(managers: Swarm) -> None:
    """A manager that was stopped while the key was rotated is unlocked with the former one, as with dockerd."""
    first, second, third = managers.managers
    first.docker("swarm", "update", "--autolock")
    former = first.docker("swarm", "unlock-key", "-q").stdout.strip()
    managers.join(second, "manager")
    managers.join(third, "manager")
    assert settles(lambda: agree(managers.managers, "node"))
    third.daemon.stop()
    first.docker("swarm", "unlock-key", "--rotate")
    key = second.docker("swarm", "unlock-key", "-q").stdout.strip()
    assert key != former
    third.start()
    assert info(third)["LocalNodeState"] == "locked"
    assert ENCRYPTED in third.docker("node", "ls", check=False).output
    refused = third.docker("swarm", "unlock", input=f"{key}\n", check=False)
    assert "swarm could not be unlocked: invalid key provided" in refused.output
    third.docker("swarm", "unlock", input=f"{former}\n")
    assert settles(lambda: nodes(third)[third.name]["ManagerStatus"] == "Reachable")

    def sealed() -> bool:
        """The key has arrived at the third manager: its next start needs the new one."""
        third.daemon.stop()
        third.start()
        assert info(third)["LocalNodeState"] == "locked"
        return third.docker("swarm", "unlock", input=f"{key}\n", check=False).status == 0

    assert settles(sealed)
    assert settles(lambda: agree(managers.managers, "node"))
    first.docker("swarm", "update", "--autolock=false")
    assert settles(lambda: (third.data / "swarm" / "manager.key").exists())
    third.daemon.stop()
    third.start()
    assert settles(lambda: agree(managers.managers, "node"))


def test_the_root_of_the_certificates_is_rotated(managers: Swarm) -> None:
    first = managers.first
    root = first.docker("swarm", "ca").stdout
    token = first.docker("swarm", "join-token", "-q", "worker").stdout.strip()
    first.docker("swarm", "ca", "--rotate", "--detach")
    rotated = first.docker("swarm", "ca").stdout
    assert "BEGIN CERTIFICATE" in rotated
    assert rotated != root
    for host in managers.managers:
        assert settles(lambda host=host: host.docker("swarm", "ca").stdout == rotated)  # type: ignore[misc]
        assert settles(lambda host=host: {row["TLSStatus"] for row in nodes(host).values()} == {"Ready"})  # type: ignore[misc]
    new = first.docker("swarm", "join-token", "-q", "worker").stdout.strip()
    assert new.split("-")[2] != token.split("-")[2]
    _config(managers.managers[2], "rotated")


def test_a_snapshot_of_etcd_is_restored_when_the_quorum_is_lost(managers: Swarm, tmp_path: Path) -> None:
    """The commands are those of deploy/README.md."""
    first, second, third = managers.managers
    directory, snapshot = first.data / "swarm", str(tmp_path / "snapshot.db")
    socket = first.machine.path(first.resources.root) / "run" / "swarm" / "client.sock:0"
    save = ("etcdctl", "--endpoints", f"unix://{socket}", "snapshot", "save", snapshot)
    # The end of the rotation before starts etcd once more.
    assert settles(lambda: first.run_in_netns(*save, check=False).status == 0)
    _config(first, "too-late")
    second.power_off()
    third.power_off()
    refused = first.docker("config", "create", "refused", "-", input="x", check=False)
    assert NO_LEADER in refused.output
    first.daemon.stop()
    shutil.rmtree(directory / "etcd")
    node = json.loads((directory / "node.json").read_text())["NodeID"]
    url = f"https://{first.address}:2380"
    first.run_in_netns(
        "etcdutl", "snapshot", "restore", snapshot, "--data-dir", str(directory / "etcd"), "--name", node,
        "--initial-cluster", f"{node}={url}", "--initial-advertise-peer-urls", url,
    )  # fmt: skip
    first.start()
    first.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", first.address)
    assert _configs(first) == {"before", "rotated"}
    assert [name for name, row in nodes(first).items() if row["ManagerStatus"]] == [first.name]
    assert settles(lambda: bool(running([first], "web")[first.name]), seconds=60)
    second.power_on()
    managers.rejoin(second, "manager")
    assert settles(lambda: agree([first, second], "config"))
    assert {each["Addr"] for each in info(second)["RemoteManagers"]} == {
        f"{host.address}:{PORT}" for host in (first, second)
    }
