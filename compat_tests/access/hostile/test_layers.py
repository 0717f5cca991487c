"""Layers of the victim, claimed by their diff ids, which anybody can write into an image's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from compat_tests.access.hostile.conftest import SECRET, Victim
from compat_tests.access.hostile.test_archives import OCI, _layout
from compat_tests.clients.builder.control import control
from compat_tests.support.images import descriptor, digest, layer
from compat_tests.support.servers.claiming import ClaimingRegistry
from compat_tests.support.users import Lab, User


@dataclass(frozen=True, slots=True)
class Claim:
    """An image with the diff ids of the victim's, over worthless layers."""

    config: bytes
    layers: tuple[bytes, ...]
    manifest: bytes

    @property
    def target(self) -> dict[str, object]:
        return descriptor(self.manifest, f"{OCI}.manifest.v1+json")

    @property
    def blobs(self) -> Mapping[str, bytes]:
        return {digest(each): each for each in (self.config, *self.layers, self.manifest)}


def claim(diff_ids: list[str]) -> Claim:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    layers = tuple(layer({f"worthless-{number}": b""}) for number in range(len(diff_ids)))
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor(config, f"{OCI}.config.v1+json"),
        "layers": [descriptor(each, f"{OCI}.layer.v1.tar") for each in layers],
    }
    return Claim(config, layers, json.dumps(document).encode())


@pytest.fixture
def claimed(victim: Victim) -> Claim:
    shown = victim.alice.api.get(f"/images/{victim.image}/json").json()
    return claim(shown["RootFS"]["Layers"])


@pytest.fixture
def bob(hostile_lab: Lab) -> Iterator[User]:
    user = hostile_lab["bob"]
    yield user
    user.docker("image", "prune", "-af")


def _use(user: User, name: str) -> None:
    """A container, a mount and a build of the image: none has the victim's files."""
    for words in (
        ("run", "--rm", "--pull", "never", name, "cat", "/secret"),
        ("run", "--rm", "--mount", f"type=image,src={name},dst=/image", "busybox", "cat", "/image/secret"),
    ):
        done = user.docker(*words, check=False)
        assert done.status != 0
        assert SECRET not in done.output
    for kind in ("0", "1"):
        text = f"FROM {name} AS stolen\nFROM busybox\nCOPY --from=stolen /secret /found\nRUN cat /found\n"
        done = user.run(
            *("docker", "build", "--progress=plain", "--no-cache", "-"),
            input=text.encode(),
            env={"DOCKER_BUILDKIT": kind},
            check=False,
        )
        assert done.status != 0, done.output
        assert SECRET not in done.output


def test_loads(victim: Victim, bob: User, claimed: Claim) -> None:
    bob.docker("load", input=_layout(claimed.target, claimed.blobs), check=False)
    _use(bob, "stolen:1")
    files = {f"{number}.tar": data for number, data in enumerate(claimed.layers)}
    manifest = [{"Config": "config.json", "RepoTags": ["stolen:2"], "Layers": list(files)}]
    documents = {"config.json": claimed.config, "manifest.json": json.dumps(manifest).encode()}
    bob.docker("load", input=layer({**documents, **files}), check=False)
    _use(bob, "stolen:2")


def test_a_pull(victim: Victim, bob: User, claimed: Claim) -> None:
    with ClaimingRegistry(claimed.manifest, claimed.blobs) as server:
        name = f"{server.address}/stolen:1"
        bob.docker("pull", "-q", name, check=False)
        _use(bob, name)


def test_the_content_service_of_builds(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    """Clients of BuildKit read blobs by their digests."""
    grpc = pytest.importorskip("grpc")
    target = victim.alice.api.get(f"/images/{victim.image}/json").json()["Descriptor"]["digest"]
    document = json.loads(hostile_lab.engine.ctr("content", "get", target).stdout)
    with control(victim.alice) as service:
        assert json.loads(service.blob(target)) == document
    digests = [target, document["config"]["digest"], document["layers"][-1]["digest"]]
    with control(bob) as service:
        for blob in digests:
            for call in (service.blob, service.info):
                with pytest.raises(grpc.RpcError) as caught:
                    call(blob)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                assert caught.value.details() == f"content {blob}: not found"


def _folder(user: User, name: str, image: Claim, *, without: tuple[str, ...] = ()) -> str:
    """An OCI layout in the user's home, with the image but without some of its blobs."""
    folder = user.home / name
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.target]}))
    for name, data in image.blobs.items():
        if name not in without:
            (folder / "blobs/sha256" / name.removeprefix("sha256:")).write_bytes(data)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return f"oci-layout://{folder}@{digest(image.manifest)}"


def test_a_layout_of_the_client(hostile_lab: Lab, victim: Victim, bob: User, claimed: Claim) -> None:
    """The victim's diff ids over worthless layers, and the victim's own layers, of which the client has no bytes."""
    shown = victim.alice.api.get(f"/images/{victim.image}/json").json()["Descriptor"]["digest"]
    raw = hostile_lab.engine.ctr("content", "get", shown).stdout.encode()
    document = json.loads(raw)
    config = hostile_lab.engine.ctr("content", "get", document["config"]["digest"]).stdout.encode()
    for number, (image, reason) in enumerate(((claimed, "has the diff id"), (Claim(config, (), raw), "not found"))):
        layout = _folder(bob, f"layout-{number}", image)
        text = b"FROM stolen AS stolen\nFROM busybox\nCOPY --from=stolen /secret /found\nRUN cat /found\n"
        words = ("build", "--progress=plain", "--no-cache", "--build-context", f"stolen={layout}", "-")
        done = bob.docker(*words, input=text, check=False)
        assert done.status != 0
        assert reason in done.stderr
        assert SECRET not in done.output
