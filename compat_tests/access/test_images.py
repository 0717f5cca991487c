"""Images of several owners: the content is stored once, and a digest gives nobody a right to it."""

from __future__ import annotations

import hashlib
import http
import json
from typing import Any

from compat_tests.support.images import busybox_archive
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler
from compat_tests.support.servers.registry import PASSWORD, USER, registry
from compat_tests.support.users import Lab, User

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def tags(user: User) -> set[str]:
    return set(user.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


def build(user: User, name: str, text: str) -> None:
    """An image of the user, with a file."""
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


def claiming(manifest: bytes, digests: set[str]) -> type[QuietHandler]:
    """A registry that claims to have blobs, and sends other bytes."""

    class Handler(QuietHandler):
        def _answer(self, *, body: bool) -> None:
            kind, data, digest = "application/octet-stream", b"", ""
            if "/manifests/" in self.path:
                kind, data = MANIFEST, manifest
                digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
            elif "/blobs/" in self.path and self.path.rpartition("/")[2] in digests:
                data, digest = b"no layer", self.path.rpartition("/")[2]
            self.send_response(http.HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

    return Handler


def test_a_registry_that_claims_blobs_of_others(shared_lab: Lab) -> None:
    """bob knows the digests of alice's image, and runs a registry of his own."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    build(alice, "mine", "secret")
    target = alice.api.get("/images/mine/json").json()["Descriptor"]["digest"]
    ctr = shared_lab.engine.ctr("content", "get", target)
    document: dict[str, Any] = json.loads(ctr.stdout)
    digests = {part["digest"] for part in (document["config"], *document["layers"])}
    # Another document with the same config and layers, and the document itself.
    for manifest in (json.dumps({**document, "annotations": {"by": "bob"}}).encode(), ctr.stdout.encode()):
        with LoopbackServer(claiming(manifest, digests)) as server:
            failed = bob.docker("pull", "-q", f"{server.address}/stolen:1", check=False)
        assert failed.status == 1
        assert "not found" in failed.stderr or "sent other bytes" in failed.stderr
        assert tags(bob) == {"busybox:latest"}
    alice.docker("rmi", "mine")
