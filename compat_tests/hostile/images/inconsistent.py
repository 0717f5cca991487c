"""A registry that serves documents chosen by a test, consistent or not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from compat_tests.support.images import config, descriptor, digest, layer
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"


@dataclass(slots=True)
class ValidImage:
    """A consistent image, whose parts a test replaces. ``blobs``: the registry's content for a digest."""

    layers: Sequence[bytes]
    packed: list[bytes] = field(init=False)
    config: dict[str, Any] = field(init=False)
    manifest: dict[str, Any] = field(init=False)
    blobs: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # further documents by digest
    top: bytes = b""  # replaces the manifest

    def __post_init__(self) -> None:
        self.packed = [gzip.compress(data, mtime=0) for data in self.layers]
        self.blobs.update({digest(data): data for data in self.packed})
        self.config = json.loads(config(self.layers))
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "layers": [descriptor(data, f"{OCI}.layer.v1.tar+gzip") for data in self.packed],
        }
        self.describe()

    def describe(self, data: bytes | None = None) -> None:
        """Make the manifest refer to the current config, or to these bytes."""
        data = json.dumps(self.config).encode() if data is None else data
        self.blobs[digest(data)] = data
        self.manifest["config"] = descriptor(data, f"{OCI}.config.v1+json")

    def index(self, **child: object) -> None:
        """Make the top document an index of the manifest; ``child`` replaces fields of its entry."""
        data = json.dumps(self.manifest).encode()
        self.documents[digest(data)] = MANIFEST, data
        platform = {"architecture": "amd64", "os": "linux"}
        entry = {**descriptor(data, MANIFEST, platform=platform), **child}
        self.top = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()

    def archive(self, tag: str) -> bytes:
        """Return the image as an OCI layout in a tar."""
        data = json.dumps(self.manifest).encode()
        entry = descriptor(data, MANIFEST, annotations={"io.containerd.image.name": f"docker.io/library/{tag}"})
        blobs = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (*self.blobs.values(), data)}
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        return layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', **blobs, "index.json": index})


Corruption = Callable[[ValidImage], None]


class InconsistentRegistry(LoopbackServer):
    """``requested``: the digests of the requested blobs."""

    def __init__(self) -> None:
        self.image = ValidImage([layer({"empty": b""})])
        self.requested: list[str] = []
        registry = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                found = registry._find(urlsplit(self.path).path)
                media_type, data = found or ("text/plain", b"")
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_GET = do_HEAD = _serve

        super().__init__(Handler)

    def _find(self, path: str) -> tuple[str, bytes] | None:
        kind, _, selector = path.rpartition("/")
        if kind.endswith("/blobs"):
            self.requested.append(selector)
            data = self.image.blobs.get(selector)
            return None if data is None else ("application/octet-stream", data)
        if kind.endswith("/manifests"):
            top = self.image.top or json.dumps(self.image.manifest).encode()
            if ":" not in selector or selector == digest(top):
                return (INDEX if b'"manifests"' in top[:200] else MANIFEST), top
            return self.image.documents.get(selector)
        return "text/plain", b""
