"""Transfers of images: layers and manifests of any form, requests to registries, progress messages."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compat_tests.support.api import Answer
from compat_tests.support.engines import Engine
from compat_tests.support.images import config, descriptor, digest, layer, oci_archive
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import RegistryProxy, Rule

OCI = "application/vnd.oci.image"
CERTS = Path("/etc/docker/certs.d")


def tags(engine: Engine) -> set[str]:
    """Return the tags of all images, and the ids of those without one."""
    return {tag for image in engine.api.get("/images/json").json() for tag in image["RepoTags"] or [image["Id"]]}


def image_ids(engine: Engine) -> set[str]:
    """Return the ids of all images, intermediate and untagged ones included."""
    return {str(image["Id"]) for image in engine.api.get("/images/json", all=1).json()}


@contextlib.contextmanager
def new_images_removed(engine: Engine) -> Iterator[None]:
    """Remove the tags that the block adds, then the images, intermediate ones included."""
    before = tags(engine) | image_ids(engine)
    yield
    added = (tags(engine) | image_ids(engine)) - before
    for name in sorted(added, key=lambda name: name.startswith("sha256:")):
        engine.api.delete(f"/images/{name}", force=1)


def unique_layers(count: int = 2, size: int = 100) -> list[bytes]:
    """Return layers that are unique to this test."""
    return [layer({f"file{number}": os.urandom(size)}) for number in range(count)]


def put_manifest(registry: Registry, repository: str, data: bytes, media_type: str, *, tag: str = "") -> None:
    """Put a manifest or an index by the registry's API, under its tag or its digest."""
    request_registry(registry, "PUT", f"/v2/{repository}/manifests/{tag or digest(data)}", data, media_type)


def put_blob(registry: Registry, repository: str, data: bytes) -> None:
    """Upload a blob by the registry's API."""
    location = request_registry(registry, "POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    url = urlsplit(location)
    path = f"{url.path}?{url.query}&digest={digest(data)}"
    request_registry(registry, "PUT", path, data, "application/octet-stream")


def request_registry(registry: Registry, method: str, path: str, data: bytes = b"", media_type: str = "") -> Answer:
    """Send a request to a registry without authentication; AssertionError if its status is an error or a redirect."""
    connection = http.client.HTTPConnection(registry.address, timeout=60)
    try:
        connection.request(method, path, data, {"Accept": f"{OCI}.manifest.v1+json", "Content-Type": media_type})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()
    assert answer.status < 300, answer
    return answer


def manifest(layers: list[bytes], packed: list[bytes], kinds: list[str], **fields: object) -> tuple[bytes, bytes]:
    """Return (manifest, config) of an OCI image with layers of any media types."""
    blob = config(layers, **fields)
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor(blob, f"{OCI}.config.v1+json"),
        "layers": [descriptor(data, kind) for data, kind in zip(packed, kinds, strict=True)],
    }
    return json.dumps(document).encode(), blob


def progress_messages(engine: Engine, method: str, path: str, **query: object) -> list[Any]:
    """Return the messages of an operation's progress stream."""
    headers = {"X-Registry-Auth": "e30="}
    answer = engine.api.request(method, path, query=query, headers=headers)
    assert answer.status == 200, answer.body
    return answer.lines()


def layer_statuses(messages: list[Any], id: str) -> list[str]:
    """Return the statuses of one layer; their progress depends on time."""
    statuses: list[str] = []
    for message in messages:
        if message.get("id") == id and message["status"] not in ("Downloading", "Pushing", *statuses[-1:]):
            statuses.append(message["status"])
    return statuses


@contextlib.contextmanager
def proxied(
    registry: Registry, repository: str, layers: list[bytes], rule: Rule
) -> Iterator[tuple[RegistryProxy, list[str]]]:
    """Put an image into the registry behind a proxy; yield the proxy and the layers' digests."""
    registry.copy_archive(oci_archive("x:1", layers), f"{repository}:1", format="oci-archive")
    with RegistryProxy(registry.address, rule) as proxy:
        yield proxy, [digest(gzip.compress(data, mtime=0)) for data in layers]


@contextlib.contextmanager
def certificate_directory(address: str, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Create a registry's certificate directory on this host; at the end remove it, and empty parent directories."""
    folder = CERTS / address
    created = [path for path in (CERTS, *CERTS.parents) if not path.exists()]
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):
            for path in created:
                path.rmdir()
