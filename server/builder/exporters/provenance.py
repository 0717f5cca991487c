"""The provenance of an image: an in-toto statement with SLSA's predicate (v0.2) in BuildKit's minimal form."""

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from engine.api.types import Descriptor
from server.builder.jobs.job import Job, SolvedTarget
from server.builder.plan.imageconfig import utc
from server.registry import oci
from server.registry.reference import parse

LAYOUT = "oci-layout://"
STATEMENT = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v0.2"


_CREDENTIALS = re.compile(r"(?<=://)([^/?#@:]*)(:[^/?#@]*)?@")

# Front end options that describe the host, or that have a field of their own in the predicate.
_ELSEWHERE = ("cgroup-parent", "image-resolve-mode", "platform", "cache-imports", "filename")


@dataclass(frozen=True, slots=True)
class Origins:
    """The sources of a build. ``bases``: name and digest of each base image; ``fetched``: URLs of files and
    repositories, with their digests (``sha256:…``, ``sha1:…``); ``options``: the front end's."""

    build: str
    platform: str
    bases: Sequence[tuple[str, str]]
    dockerfile: str
    options: Mapping[str, str]
    started_ns: int
    ended_ns: int
    fetched: Mapping[str, str] = field(default_factory=dict)
    local: Collection[str] = ()
    """Names of the client's directories that were read."""
    networked: bool = True

    @staticmethod
    def from_job(job: Job, made: SolvedTarget) -> "Origins":
        """Return the sources of one result, as recorded so far."""
        options = {**job.request.FrontendAttrs, **job.options}
        times = job.created_ns, time.time_ns()
        return Origins(
            job.ref, made.platform, made.bases, made.dockerfile, options, *times, job.fetched, job.local, made.networked
        )


def redact(url: str) -> str:
    """Remove the user and password from a URL."""
    return _CREDENTIALS.sub(lambda found: "xxxxx:xxxxx@" if found[2] else "xxxxx@", url)


def _arguments(options: Mapping[str, str]) -> dict[str, str]:
    """The options in BuildKit's minimal form: no build arguments, no labels, no credentials."""
    context = options.get("contextkey") or "context"
    left_out = ("attest:", "vcs:", "build-arg:", "label:")
    return {
        key: redact(value) if key.startswith("context:") else value
        for key, value in options.items()
        if key not in _ELSEWHERE and key != context and not key.startswith(left_out)
    }


def _url(name: str, platform: str) -> str:
    """An image's package URL; an image of a client's OCI layout has another type."""
    kind = "oci" if name.startswith(LAYOUT) else "docker"
    reference = parse(name.removeprefix(LAYOUT))
    if not reference.digest:
        reference = reference.tagged()
    version = f"@{quote(reference.tag, safe='')}" if reference.tag else ""
    digest = f"digest={quote(reference.digest, safe=':')}&" if reference.digest else ""
    name = quote(reference.familiar_name, safe="/:")
    return f"pkg:{kind}/{name}{version}?{digest}platform={quote(platform, safe='')}"


def predicate(origins: Origins) -> dict[str, object]:
    """Return the predicate, which is independent of the subject."""
    bases = {_url(name, origins.platform): digest for name, digest in origins.bases}  # one image may have several names
    materials = [{"uri": url, "digest": _digest(digest)} for url, digest in sorted(bases.items())]
    # Repositories before files, as "sha1:" sorts before "sha256:".
    for url, digest in sorted(origins.fetched.items(), key=lambda item: (item[1][:5], item[0])):
        materials.append({"uri": redact(url), "digest": _digest(digest)})
    options = origins.options
    source: dict[str, object] = {"entryPoint": origins.dockerfile}
    if context := options.get(options.get("contextkey") or "context"):
        source["uri"] = redact(context)
        if found := origins.fetched.get(context):
            source["digest"] = _digest(found)
    vcs = {key[4:]: redact(value) for key, value in options.items() if key.startswith("vcs:") and value}
    hidden = any(key.startswith(("build-arg:", "label:")) for key in options)
    parameters: dict[str, object] = {"frontend": "dockerfile.v0"}
    if arguments := _arguments(options):
        parameters["args"] = arguments
    if origins.local:
        parameters["locals"] = [{"name": name} for name in sorted(origins.local)]
    return {
        "builder": {"id": ""},
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": materials,
        "invocation": {
            "configSource": source,
            "parameters": parameters,
            "environment": {"platform": oci.format_platform(oci.host_platform())},
        },
        "metadata": {
            "buildInvocationID": origins.build,
            "buildStartedOn": utc(origins.started_ns),
            "buildFinishedOn": utc(origins.ended_ns),
            "completeness": {"parameters": not hidden, "environment": True, "materials": not origins.local},
            "reproducible": False,
            **({} if origins.local or origins.networked else {"https://mobyproject.org/buildkit@v1#hermetic": True}),
            **({"https://mobyproject.org/buildkit@v1#metadata": {"vcs": vcs}} if vcs else {}),
        },
    }


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}


def statement(origins: Origins, names: Sequence[str], image: str) -> bytes:
    """Encode the statement about an image's manifest."""
    value = image.partition(":")[2]
    subjects = [{"name": _url(name, origins.platform), "digest": {"sha256": value}} for name in names]
    document = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": PREDICATE,
        "subject": subjects or [{"name": "_", "digest": {"sha256": value}}],
        "predicate": predicate(origins),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def attestation(data: bytes) -> tuple[bytes, bytes]:
    """Return the configuration and the manifest of an attestation with one statement."""
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
