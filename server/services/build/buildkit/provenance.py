"""Where an image comes from: an in-toto statement with SLSA's predicate (v0.2) in BuildKit's minimal form."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from engine.api.types import Descriptor
from engine.build.imageconfig import utc
from engine.registry import oci
from engine.registry.reference import parse

STATEMENT = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v0.2"


@dataclass(frozen=True, slots=True)
class Origins:
    """What is told of a build. ``bases``: name and digest of each base image."""

    build: str
    platform: str
    bases: Sequence[tuple[str, str]]
    dockerfile: str
    parameters: Mapping[str, str]
    started_ns: int
    ended_ns: int


def _url(name: str, platform: str) -> str:
    reference = parse(name).tagged()
    version = reference.tag or reference.digest
    return f"pkg:docker/{quote(reference.familiar_name)}@{quote(version, safe='')}?platform={quote(platform, safe='')}"


def statement(origins: Origins, names: Sequence[str], image: str) -> bytes:
    """The statement about an image's manifest."""
    value = image.partition(":")[2]
    subjects = [{"name": _url(name, origins.platform), "digest": {"sha256": value}} for name in names]
    materials = [
        {"uri": _url(name, origins.platform), "digest": {"sha256": digest.partition(":")[2]}}
        for name, digest in origins.bases
    ]
    predicate = {
        "builder": {"id": ""},
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": materials,
        "invocation": {
            "configSource": {"entryPoint": origins.dockerfile},
            "parameters": {"frontend": "dockerfile.v0", "args": dict(origins.parameters)},
            "environment": {"platform": origins.platform},
        },
        "metadata": {
            "buildInvocationID": origins.build,
            "buildStartedOn": utc(origins.started_ns),
            "buildFinishedOn": utc(origins.ended_ns),
            "completeness": {"parameters": False, "environment": True, "materials": False},
            "reproducible": False,
        },
    }
    document = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": PREDICATE,
        "subject": subjects or [{"name": "_", "digest": {"sha256": value}}],
        "predicate": predicate,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def attestation(data: bytes) -> tuple[bytes, bytes]:
    """The configuration and the manifest of an attestation that holds one statement."""
    config = json.dumps(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [oci.digest_of(data)]},
        },
        separators=(",", ":"),
    ).encode()
    layer = oci.to_json(Descriptor(STATEMENT, oci.digest_of(data), len(data)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": oci.to_json(Descriptor(oci.OCI_CONFIG, oci.digest_of(config), len(config))),
        "layers": [{**layer, "annotations": {"in-toto.io/predicate-type": PREDICATE}}],
    }
    return config, json.dumps(manifest, separators=(",", ":")).encode()
