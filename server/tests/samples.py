"""Images for the unit tests: archives as ``docker save`` writes them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def layer(files: Mapping[str, bytes]) -> bytes:
    """A tar with these files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def archive(names: Sequence[str], content: bytes, config: Mapping[str, Any]) -> bytes:
    """An image with one layer. ``config`` is the configuration's ``config`` object."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "ADD file"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": list(names) or None, "Layers": ["layer.tar"]}]
    documents = {"config.json": json.dumps(document), "manifest.json": json.dumps(manifest)}
    return layer({"layer.tar": content, **{name: text.encode() for name, text in documents.items()}})


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Index:
    """An OCI layout with an index of amd64 and arm64, each with an attestation: provenance, packages."""

    archive: bytes
    digest: str
    manifests: tuple[str, str]
    attestations: tuple[str, str]
    statements: tuple[bytes, bytes]


def index(name: str) -> Index:
    """An index of two platforms as BuildKit writes it; ``name`` is canonical. Equal names give equal bytes."""
    oci = "application/vnd.oci.image"
    blobs: dict[str, bytes] = {}

    def stored(data: bytes | object, media_type: str, **more: object) -> dict[str, object]:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        blobs[_digest(raw)] = raw
        return {"mediaType": media_type, "digest": _digest(raw), "size": len(raw), **more}

    def manifest(config: object, layers: Sequence[object], **more: object) -> dict[str, object]:
        document = {
            "schemaVersion": 2,
            "mediaType": f"{oci}.manifest.v1+json",
            "config": stored(config, f"{oci}.config.v1+json"),
            "layers": layers,
        }
        return stored(document, f"{oci}.manifest.v1+json", **more)

    kinds = ("https://slsa.dev/provenance/v1", "https://spdx.dev/Document")
    provenance, packages = (json.dumps({"predicateType": kind, "a": "<b>"}, indent=1).encode() for kind in kinds)
    images, attested = [], []
    for architecture in ("amd64", "arm64"):
        content = layer({"which": f"{architecture} of {name}".encode()})
        config = {"os": "linux", "architecture": architecture, "config": {}, "rootfs": {"diff_ids": [_digest(content)]}}
        platform = {"architecture": architecture, "os": "linux"}
        images.append(manifest(config, [stored(content, f"{oci}.layer.v1.tar")], platform=platform))
        notes = {"vnd.docker.reference.type": "attestation-manifest"}
        notes["vnd.docker.reference.digest"] = str(images[-1]["digest"])
        statements = [
            stored(statement, "application/vnd.in-toto+json", annotations={"in-toto.io/predicate-type": kind})
            for kind, statement in zip(kinds, (provenance, packages), strict=True)
        ]
        unknown = {"architecture": "unknown", "os": "unknown"}
        attested.append(manifest({"of": architecture}, statements, annotations=notes, platform=unknown))
    document = {"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json", "manifests": [*images, *attested]}
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    top = stored(document, f"{oci}.index.v1+json", annotations=named)
    files = {f"blobs/{key.replace(':', '/')}": data for key, data in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    (one, other), (of_one, of_other) = ([str(each["digest"]) for each in found] for found in (images, attested))
    return Index(layer(files), str(top["digest"]), (one, other), (of_one, of_other), (provenance, packages))
