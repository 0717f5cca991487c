"""A lab with a victim and two hostile users, and what the victim has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from compat_tests.support.users import Lab, User, lab

POLICY = """
published_images = ["docker.io/library/busybox:*"]

[users]
{alice} = "member"
{bob} = "member"
{mallory} = "member"

[roles.member]
"""
SECRET = "the-secret-of-alice"


@dataclass(frozen=True, slots=True)
class Victim:
    """alice's objects, which are there during all tests: what the hostile users know of them, and have to leave as it
    is. The container runs, and has the secret in its environment, log, files and volume."""

    alice: User
    container: str
    image: str
    digest: str
    network: str
    exec: str
    before: dict[str, Any]

    #: Names that no hostile user may ever see in an answer that isn't an echo of the request.
    names = ("vic-web", "vic-data", "vic-net", "vic-image", SECRET)

    def state(self) -> dict[str, Any]:
        """What may not change."""
        shown = self.alice.api.get(f"/containers/{self.container}/json").json()
        files = self.alice.docker("exec", self.container, "cat", "/secret", "/data/secret").stdout
        return {
            "state": shown["State"],
            "name": shown["Name"],
            "memory": shown["HostConfig"]["Memory"],
            "networks": sorted(shown["NetworkSettings"]["Networks"]),
            "files": files,
            "log": self.alice.docker("logs", self.container).stdout,
            "image": self.alice.api.get("/images/vic-image/json").json()["Id"],
            "images": self.alice.docker("images", "-q").stdout,
            "volume": self.alice.api.get("/volumes/vic-data").json()["CreatedAt"],
            "network": self.alice.api.get("/networks/vic-net").json()["Id"],
        }

    def echoes(self, body: bytes) -> list[str]:
        """What an answer to a hostile user shows of alice's objects."""
        known = (*self.names, self.container[:12], self.digest[7:19], self.network[:12], self.exec[:12])
        return [each for each in known if each.encode() in body]


@pytest.fixture(scope="package")
def hostile_lab() -> Iterator[Lab]:
    with lab("hostile", POLICY, ("alice", "bob", "mallory")) as made:
        yield made


@pytest.fixture(scope="package")
def victim(hostile_lab: Lab) -> Iterator[Victim]:
    alice = hostile_lab["alice"]
    alice.docker("network", "create", "vic-net")
    alice.docker("volume", "create", "vic-data")
    made = alice.docker("run", "-d", "busybox", "sh", "-c", f"echo {SECRET} > /secret").stdout.strip()
    alice.docker("wait", made)
    digest = alice.docker("commit", made, "vic-image").stdout.strip()
    alice.docker("rm", made)
    script = f"echo {SECRET} | tee /secret /data/secret; exec sleep 3600"
    words = ("--name", "vic-web", "--network", "vic-net", "-v", "vic-data:/data", "-e", f"TOKEN={SECRET}")
    container = alice.docker("run", "-d", *words, "vic-image", "sh", "-c", script).stdout.strip()
    alice.docker("exec", "-d", container, "sleep", "3600")
    shown = alice.api.get(f"/containers/{container}/json").json()
    network = alice.docker("network", "inspect", "-f", "{{.Id}}", "vic-net").stdout.strip()
    found = Victim(alice, container, "vic-image", digest, network, shown["ExecIDs"][0], {})
    found.before.update(found.state())
    yield found
    alice.docker("rm", "-f", container)
    alice.docker("rmi", "vic-image")


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did, alice's objects are as before."""
    yield
    if "victim" in request.fixturenames:
        found: Victim = request.getfixturevalue("victim")
        assert found.state() == found.before
