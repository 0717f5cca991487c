"""Images built by the tests: archives in both formats that `docker load` reads."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a layer: a file, unless `kind` says otherwise."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    kind: bytes = tarfile.REGTYPE
    link: str = ""


def digest(data: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def short_digest(data: bytes) -> str:
    """Return the id of a layer in progress messages."""
    return hashlib.sha256(data).hexdigest()[:12]


@functools.cache
def busybox_archive() -> bytes:
    """Return the docker-archive of busybox:latest that the quickstart also loads."""
    script = ROOT / "deploy" / "busybox_image.py"
    return subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=120).stdout


@functools.cache
def busybox_layer() -> bytes:
    """Return its only layer as an uncompressed tar."""
    with tarfile.open(fileobj=io.BytesIO(busybox_archive())) as archive:
        for member in archive:
            if member.name.endswith("/layer.tar"):
                file = archive.extractfile(member)
                assert file is not None
                return file.read()
    raise AssertionError("no layer in the busybox archive")


def layer(nodes: Mapping[str, Node | bytes | str]) -> bytes:
    """Return a layer tar of these entries, in this order, with times at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in nodes.items():
            node = entry if isinstance(entry, Node) else Node(entry.encode() if isinstance(entry, str) else entry)
            info = tarfile.TarInfo(name)
            info.type, info.linkname = node.kind, node.link
            info.mode, info.uid, info.gid = node.mode, node.uid, node.gid
            info.size = len(node.data) if node.kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(node.data) if info.size else None)
    return buffer.getvalue()


def config(layers: Sequence[bytes], **fields: object) -> bytes:
    """Return an image config for these layers; `fields` are those of its `config` (Cmd, Env, User …)."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ENV, "Cmd": ["sh"], **fields},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"layer {n}"} for n in range(len(layers))],
    }
    return json.dumps(document).encode()


def docker_archive(tag: str, layers: Sequence[bytes], **fields: object) -> bytes:
    """Return a docker-archive as `docker save` wrote it before OCI layouts: config, layers, manifest.json."""
    blob = config(layers, **fields)
    names = [f"{hashlib.sha256(data).hexdigest()}.tar" for data in layers]
    image = f"{hashlib.sha256(blob).hexdigest()}.json"
    manifest = json.dumps([{"Config": image, "RepoTags": [tag], "Layers": names}])
    return layer({image: blob, **dict(zip(names, layers, strict=True)), "manifest.json": manifest})


def descriptor(data: bytes, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def oci_archive(tag: str, layers: Sequence[bytes], **fields: object) -> bytes:
    """Return an OCI layout in a tar, with gzip layers."""
    blob = config(layers, **fields)
    packed = [gzip.compress(data, mtime=0) for data in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(blob, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(data, "application/vnd.oci.image.layer.v1.tar+gzip") for data in packed],
        }
    ).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            descriptor(
                manifest,
                "application/vnd.oci.image.manifest.v1+json",
                platform={"architecture": "amd64", "os": "linux"},
                annotations={
                    "io.containerd.image.name": f"docker.io/library/{tag}",
                    "org.opencontainers.image.ref.name": tag,
                },
            )
        ],
    }
    blobs = {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data for data in (blob, *packed, manifest)}
    return layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', **blobs, "index.json": json.dumps(index)})
