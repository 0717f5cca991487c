"""Images for the unit tests: archives as ``docker save`` writes them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
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
