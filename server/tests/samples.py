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
    """An OCI layout with an index of some platforms, each with an attestation: provenance, packages."""

    archive: bytes
    digest: str
    manifests: tuple[str, ...]
    attestations: tuple[str, ...]
    statements: tuple[bytes, bytes]


def index(name: str, platforms: Sequence[str] = ("amd64", "arm64"), *, without: Sequence[str] = ()) -> Index:
    """An index of platforms such as ``amd64/v2`` as BuildKit writes it; ``name`` is canonical. Equal names give equal
    bytes. The archive lacks the content of the platforms ``without``."""
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
    blobs |= {_digest(statement): statement for statement in (provenance, packages)}  # all platforms share them
    images, attested = [], []
    absent: set[str] = set()
    for text in platforms:
        before = set(blobs)
        architecture, _, variant = text.partition("/")
        content = layer({"which": f"{text} of {name}".encode()})
        platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        config = {**platform, "config": {}, "rootfs": {"diff_ids": [_digest(content)]}}
        images.append(manifest(config, [stored(content, f"{oci}.layer.v1.tar")], platform=platform))
        notes = {"vnd.docker.reference.type": "attestation-manifest"}
        notes["vnd.docker.reference.digest"] = str(images[-1]["digest"])
        statements = [
            stored(statement, "application/vnd.in-toto+json", annotations={"in-toto.io/predicate-type": kind})
            for kind, statement in zip(kinds, (provenance, packages), strict=True)
        ]
        unknown = {"architecture": "unknown", "os": "unknown"}
        attested.append(manifest({"of": text}, statements, annotations=notes, platform=unknown))
        absent |= (set(blobs) - before) if text in without else set()
    document = {"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json", "manifests": [*images, *attested]}
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    top = stored(document, f"{oci}.index.v1+json", annotations=named)
    files = {f"blobs/{key.replace(':', '/')}": data for key, data in blobs.items() if key not in absent}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    manifests, attestations = (tuple(str(each["digest"]) for each in found) for found in (images, attested))
    return Index(layer(files), str(top["digest"]), manifests, attestations, (provenance, packages))
