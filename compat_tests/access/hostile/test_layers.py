"""Layers of the victim, claimed by their diff ids, which anybody can write into an image's configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from compat_tests.access.hostile.conftest import SECRET, Victim
from compat_tests.access.hostile.test_archives import OCI, _layout, _tar
from compat_tests.clients.builder.control import control
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler
from compat_tests.support.users import Lab, User


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Claim:
    """An image with the diff ids of the victim's, over worthless layers."""

    config: bytes
    layers: tuple[bytes, ...]
    manifest: bytes

    @property
    def target(self) -> dict[str, object]:
        media_type = f"{OCI}.manifest.v1+json"
        return {"mediaType": media_type, "digest": _digest(self.manifest), "size": len(self.manifest)}

    @property
    def blobs(self) -> Mapping[str, bytes]:
        return {_digest(each): each for each in (self.config, *self.layers, self.manifest)}


def claim(diff_ids: list[str]) -> Claim:
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    layers = tuple(_tar({f"worthless-{number}": b""}) for number in range(len(diff_ids)))
    parts = [{"mediaType": f"{OCI}.layer.v1.tar", "digest": _digest(each), "size": len(each)} for each in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", "digest": _digest(config), "size": len(config)},
        "layers": parts,
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
    bob.docker("load", input=_tar({**documents, **files}), check=False)
    _use(bob, "stolen:2")


def _registry(image: Claim) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def _answer(self, *, body: bool) -> None:
            manifest = "/manifests/" in self.path
            data = image.manifest if manifest else image.blobs.get(self.path.rpartition("/")[2], b"")
            self.send_response(200)
            self.send_header("Content-Type", f"{OCI}.manifest.v1+json" if manifest else "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", _digest(data))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

    return Handler


def test_a_pull(victim: Victim, bob: User, claimed: Claim) -> None:
    with LoopbackServer(_registry(claimed)) as server:
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
        for digest in digests:
            for call in (service.blob, service.info):
                with pytest.raises(grpc.RpcError) as caught:
                    call(digest)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                assert caught.value.details() == f"content {digest}: not found"


def _folder(user: User, name: str, image: Claim, *, without: tuple[str, ...] = ()) -> str:
    """An OCI layout in the user's home, with the image but without some of its blobs."""
    folder = user.home / name
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.target]}))
    for digest, data in image.blobs.items():
        if digest not in without:
            (folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return f"oci-layout://{folder}@{_digest(image.manifest)}"


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
