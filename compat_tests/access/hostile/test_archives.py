"""Archives that a hostile user loads: they name the victim's content, or files of the host, instead of having it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from compat_tests.access.hostile.conftest import SECRET, Victim
from compat_tests.support.images import Node, digest, layer
from compat_tests.support.users import Lab, User

OCI = "application/vnd.oci.image"


@pytest.fixture
def bob(hostile_lab: Lab, victim: Victim) -> Iterator[User]:
    """He has busybox only, before and after each test."""
    user = hostile_lab["bob"]
    yield user
    assert user.docker("images", "--format", "{{.Repository}}").stdout.split() == ["busybox"]


def _documents(lab: Lab, victim: Victim) -> tuple[str, bytes, dict[str, Any]]:
    """Digest, bytes and document of the manifest of the victim's image, as the administrator reads them."""
    shown = victim.alice.api.get(f"/images/{victim.image}/json").json()
    target = shown["Descriptor"]["digest"]
    raw = lab.engine.ctr("content", "get", target).stdout.encode()
    return target, raw, json.loads(raw)


def _layout(target: Mapping[str, object], blobs: Mapping[str, bytes]) -> bytes:
    annotations = {"io.containerd.image.name": "docker.io/library/stolen:1"}
    index = {"schemaVersion": 2, "manifests": [{**target, "annotations": annotations}]}
    files = {f"blobs/sha256/{name.removeprefix('sha256:')}": data for name, data in blobs.items()}
    layout = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    return layer({**layout, **files})


def _loaded(user: User, archive: bytes) -> str:
    done = user.docker("load", input=archive, check=False)
    assert "Loaded image" not in done.stdout, done.stdout
    shown = user.docker("run", "--rm", "--pull", "never", "stolen:1", "cat", "/secret", check=False)
    assert SECRET not in shown.stdout
    return done.stderr


def test_an_archive_that_names_the_content_of_others(hostile_lab: Lab, victim: Victim, bob: User) -> None:
    target, raw, document = _documents(hostile_lab, victim)
    kinds = {"mediaType": document.get("mediaType", f"{OCI}.manifest.v1+json")}
    without = _layout({**kinds, "digest": target, "size": len(raw)}, {target: raw})
    assert "Loaded image" in victim.alice.docker("load", input=without).stdout  # who has the content may do that
    victim.alice.docker("rmi", "stolen:1")
    _loaded(bob, _layout({**kinds, "digest": target, "size": len(raw)}, {}))
    _loaded(bob, _layout({**kinds, "digest": target, "size": len(raw)}, {target: raw}))
    own = json.dumps({**document, "annotations": {"by": "bob"}}).encode()
    changed = digest(own)
    _loaded(bob, _layout({**kinds, "digest": changed, "size": len(own)}, {changed: own}))
    # With a configuration of his own over her layers.
    config = json.loads(hostile_lab.engine.ctr("content", "get", document["config"]["digest"]).stdout)
    theirs = json.dumps({**config, "author": "bob"}).encode()
    named = digest(theirs)
    own = json.dumps({**document, "config": {**document["config"], "digest": named, "size": len(theirs)}}).encode()
    changed = digest(own)
    _loaded(bob, _layout({**kinds, "digest": changed, "size": len(own)}, {changed: own, named: theirs}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_archive_with_links_to_files_of_the_host(hostile_lab: Lab, victim: Victim, bob: User, kind: bytes) -> None:
    """The layer is a link to the blob of the victim's layer, and to files that root may read."""
    _, _, document = _documents(hostile_lab, victim)
    config = hostile_lab.engine.ctr("content", "get", document["config"]["digest"]).stdout.encode()
    victims = document["layers"][-1]["digest"].removeprefix("sha256:")
    blob = next(path for path in hostile_lab.engine.resources.root.rglob(victims) if "blobs" in path.parts)
    manifest = [{"Config": "config.json", "RepoTags": ["stolen:1"], "Layers": ["layer.tar"]}]
    for target in (str(blob), f"../../../../../../..{blob}", f"blobs/sha256/{victims}", "/etc/shadow"):
        files = {"config.json": config, "manifest.json": json.dumps(manifest).encode()}
        _loaded(bob, layer({**files, "layer.tar": Node(kind=kind, link=target)}))


def test_an_archive_that_takes_the_victims_name(victim: Victim, bob: User) -> None:
    """The name becomes one of bob's own; the victim's stays."""
    bob.docker("tag", "busybox", "vic-image")
    archive = bob.docker("save", "-o", "image.tar", "vic-image")
    assert archive.status == 0
    bob.docker("rmi", "vic-image")
    assert "Loaded image: vic-image:latest" in bob.docker("load", "-i", "image.tar").stdout
    bob.docker("rmi", "vic-image")
