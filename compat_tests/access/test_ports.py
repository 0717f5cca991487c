"""Host ports of a role with a range: chosen ones are of the range, and a range without a free port refuses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from compat_tests.support.users import Lab, User, lab

FIRST = 21000 + os.getpid() % 900 * 4
LAST = FIRST + 3

POLICY = f"""
published_images = ["docker.io/library/*"]
[users]
{{alice}} = "ranged"
{{bob}} = "free"
[roles.ranged]
ports = "{FIRST}-{LAST}"
[roles.free]
"""


@pytest.fixture(scope="module")
def ports_lab() -> Iterator[Lab]:
    with lab("ports", POLICY, ("alice", "bob")) as made:
        yield made


def run(user: User, name: str, *words: str) -> set[int]:
    """Run a container; the host ports that it publishes."""
    user.docker("run", "-d", "--init", "--name", name, *words, "busybox", "sleep", "3600")
    return shown(user, name)


def shown(user: User, name: str) -> set[int]:
    lines = user.docker("port", name).stdout.splitlines()
    found = {int(line.rpartition(":")[2]) for line in lines}
    inspected = user.api.get(f"/containers/{name}/json").json()["NetworkSettings"]["Ports"]
    assert {int(item["HostPort"]) for items in inspected.values() for item in items} == found
    return found


def test_chosen_ports_are_of_the_range_of_the_role(ports_lab: Lab) -> None:
    alice, bob = ports_lab["alice"], ports_lab["bob"]
    own = set(range(FIRST, LAST + 1))
    first = run(alice, "one", "-p", "80")
    second = run(alice, "two", "-P", "--expose", "80", "--expose", "81")
    assert len(first) == 1
    assert len(second) == 2
    third = run(alice, "three", "-p", f"{FIRST}-{LAST}:80")
    assert first | second | third == own
    assert run(bob, "other", "-p", "80").isdisjoint(own)
    failed = alice.docker("run", "--rm", "-p", "80", "busybox", "true", check=False)
    assert f"the policy allows you the host ports {FIRST}-{LAST}, and none of them is free" in failed.stderr
    id = alice.docker("create", "--init", "-p", "80", "busybox", "sleep", "3600").stdout.strip()
    assert alice.api.post(f"/containers/{id}/start").status == 403
    alice.docker("rm", "-f", "one")
    assert alice.api.post(f"/containers/{id}/start").status == 204
    assert shown(alice, id) == first
    alice.docker("rm", "-f", id, "two", "three")
    bob.docker("rm", "-f", "other")


def test_ports_of_other_programs_are_left_out(ports_lab: Lab) -> None:
    alice = ports_lab["alice"]
    with socket.create_server(("", FIRST), family=socket.AF_INET6, dualstack_ipv6=True):
        assert run(alice, "one", *("-p", "80") * 3) <= set(range(FIRST + 1, LAST + 1))
    alice.docker("rm", "-f", "one")


def test_ports_survive_the_daemon(ports_lab: Lab) -> None:
    alice = ports_lab["alice"]
    before = run(alice, "one", "-p", "80")
    ports_lab.engine.restart()
    assert shown(alice, "one") == before
    alice.docker("restart", "-t", "0", "one")
    assert shown(alice, "one") <= set(range(FIRST, LAST + 1))
    alice.docker("rm", "-f", "one")
