"""Images of several owners: equal content is stored once, but a user who knows its digest can't use it by that."""

from __future__ import annotations

import json
from typing import Any

from compat_tests.support.images import busybox_archive
from compat_tests.support.servers.claiming import ClaimingRegistry
from compat_tests.support.servers.registry import PASSWORD, USER, registry
from compat_tests.support.users import Lab, User


def tags(user: User) -> set[str]:
    return set(user.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


def build(user: User, name: str, text: str) -> None:
    """Commit an image of the user, with a file."""
    id = user.docker("run", "-d", "busybox", "sh", "-c", f"echo {text} > /who").stdout.strip()
    user.docker("wait", id)
    user.docker("commit", id, name)
    user.docker("rm", id)


def test_images_of_one_name(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    for user in (alice, bob):
        build(user, "mine", user.name)
        assert user.docker("run", "--rm", "mine", "cat", "/who").stdout == f"{user.name}\n"
        assert tags(user) == {"busybox:latest", "mine:latest"}
    id = alice.docker("images", "-q", "--no-trunc", "mine").stdout.strip()
    for words in (("run", "--rm", id), ("save", id), ("rmi", id), ("tag", id, "stolen"), ("history", id)):
        assert "No such image" in bob.docker(*words, check=False).stderr
    bob.docker("rmi", "mine")
    assert alice.docker("run", "--rm", "mine", "cat", "/who").stdout == f"{alice.name}\n"
    alice.docker("rmi", "mine")
    assert "published by the administrators" in alice.docker("rmi", "-f", "busybox", check=False).stderr


def test_a_private_image_needs_the_own_right_to_pull(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    with registry(auth="basic") as server:
        server.copy_archive(busybox_archive(), "private:1")
        name = server.name("private:1")
        words = ("login", "-u", USER, "--password-stdin", server.address)
        alice.docker(*words, input=PASSWORD.encode())
        alice.docker("pull", "-q", name)
        failed = bob.docker("pull", "-q", name, check=False)
        assert failed.status == 1
        assert "no basic auth credentials" in failed.stderr or "denied" in failed.stderr
        assert name not in tags(bob)
        bob.docker(*words, input=PASSWORD.encode())
        bob.docker("pull", "-q", name)
        for user in (alice, bob):
            user.docker("logout", server.address)
            user.docker("rmi", name)


def test_a_registry_that_claims_blobs_of_others(shared_lab: Lab) -> None:
    """bob knows the digests of alice's image, and runs a registry of his own."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "mine", "secret")
    target = alice.api.get("/images/mine/json").json()["Descriptor"]["digest"]
    ctr = shared_lab.engine.ctr("content", "get", target)
    document: dict[str, Any] = json.loads(ctr.stdout)
    claimed = {part["digest"]: b"no layer" for part in (document["config"], *document["layers"])}
    # Another document with the same config and layers, and the document itself.
    for manifest in (json.dumps({**document, "annotations": {"by": "bob"}}).encode(), ctr.stdout.encode()):
        with ClaimingRegistry(manifest, claimed) as server:
            failed = bob.docker("pull", "-q", f"{server.address}/stolen:1", check=False)
        assert failed.status == 1
        assert "not found" in failed.stderr or "sent other bytes" in failed.stderr
        assert tags(bob) == {"busybox:latest"}
    alice.docker("rmi", "mine")
