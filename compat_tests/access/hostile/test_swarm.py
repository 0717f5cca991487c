"""A user on the manager of an administrator's swarm: sees nothing of it, changes nothing, and reaches none of its
containers, networks, secrets and configs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.polling import until
from compat_tests.support.users import Lab, lab

POLICY = """
published_images = ["docker.io/library/busybox:*"]
[users]
{bob} = "member"
[roles.member]
"""
SECRET = "the secret of the swarm"


@pytest.fixture(scope="module")
def swarm_lab() -> Iterator[Lab]:
    """With a service ``web`` on the network ``inside``, which has a secret and a config."""
    with lab("swarm", POLICY, ("bob",)) as made:
        admin = made.engine.docker
        admin("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:0")
        try:
            for kind in ("secret", "config"):
                admin(kind, "create", "key", "-", input=SECRET.encode())
            admin("network", "create", "-d", "overlay", "--attachable", "inside")
            options = ("--secret", "key", "--config", "key", "--network", "inside", "--detach", "--no-resolve-image")
            admin("service", "create", "--name", "web", *options, "busybox", "sleep", "1000000")
            assert until(lambda: task(made) != "", seconds=60)
            yield made
            admin("service", "rm", "web")
            assert until(lambda: task(made) == "", seconds=60)
        finally:
            admin("swarm", "leave", "--force")


def task(lab: Lab) -> str:
    """The id of the service's container; "": none runs."""
    return lab.engine.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web").stdout.strip()


@pytest.mark.parametrize(
    "command",
    [
        "swarm init", "swarm join --token SWMTKN-1-x 127.0.0.1:1", "swarm leave --force", "swarm join-token worker",
        "swarm ca", "swarm unlock-key", "swarm update --autolock", "node ls", "node inspect self", "node ps",
        "node update --availability drain self", "service ls", "service ps web", "service inspect web",
        "service logs web", "service update --image busybox:2 web", "service rm web", "service create busybox",
        "secret ls", "secret inspect key", "secret rm key", "config ls", "config inspect key", "config rm key",
        "stack ls", "stack ps web",
    ],
)  # fmt: skip
def test_the_cluster(swarm_lab: Lab, command: str) -> None:
    failed = swarm_lab["bob"].docker(*command.split(), check=False)
    assert failed.status != 0
    assert "for administrators of this engine" in failed.stderr
    assert SECRET not in failed.stdout + failed.stderr


def test_containers_of_services(swarm_lab: Lab) -> None:
    bob, id = swarm_lab["bob"], task(swarm_lab)
    name = swarm_lab.engine.docker("inspect", "-f", "{{.Name}}", id).stdout.strip().removeprefix("/")
    assert bob.docker("ps", "-aq").stdout == ""
    for known in (id, name):
        for words in (
            ("inspect", known), ("logs", known), ("rm", known), ("stop", known), ("exec", known, "id"),
            ("cp", f"{known}:/run/secrets/key", "-"), ("top", known), ("stats", "--no-stream", known),
            ("commit", known, "taken"), ("run", "--rm", "--volumes-from", known, "busybox"),
            ("run", "--rm", "--network", f"container:{known}", "busybox"),
        ):  # fmt: skip
            failed = bob.docker(*words, check=False)
            assert failed.status != 0, words
            assert "o such" in failed.stderr, (words, failed.stderr)
            assert SECRET not in failed.stdout + failed.stderr
    shown = bob.docker("events", "--since", "1h", "--until", "-1s").stdout + bob.api.get("/metrics").body.decode()
    assert name not in shown
    assert "web" not in shown


@pytest.mark.parametrize("network", ["inside", "ingress", "docker_gwbridge"])
def test_networks(swarm_lab: Lab, network: str) -> None:
    bob = swarm_lab["bob"]
    before = bob.docker("ps", "-aq").stdout
    assert network not in bob.docker("network", "ls").stdout
    for known in (network, swarm_lab.engine.docker("network", "inspect", "-f", "{{.ID}}", network).stdout.strip()):
        assert "not found" in bob.docker("network", "inspect", known, check=False).stderr
        assert "not found" in bob.docker("network", "rm", known, check=False).stderr
        assert f"network {known} not found" in bob.refused_run("--network", known)
    assert bob.docker("ps", "-aq").stdout == before


def test_an_overlay_of_the_user(swarm_lab: Lab) -> None:
    failed = swarm_lab["bob"].docker("network", "create", "-d", "overlay", "--attachable", "mine", check=False)
    assert "your role does not allow networks with the driver overlay" in failed.stderr
