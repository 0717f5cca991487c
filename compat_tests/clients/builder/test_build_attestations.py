"""An image with an attestation of its provenance: built, pushed, pulled, listed (API 1.53 to 1.55); and BuildKit's
services over HTTP/2 without an upgrade."""

from __future__ import annotations

import uuid
from pathlib import Path

import grpc
import pytest

from compat_tests.clients.builder.control import Control
from compat_tests.support.api import Api
from compat_tests.support.engines import Engine
from compat_tests.support.servers.registry import Registry


def test_an_attestation_travels(engine: Engine, plain_registry: Registry, tmp_path: Path) -> None:
    api = Api(engine.api.path, version="1.55")
    name = plain_registry.name(f"attested-{uuid.uuid4().hex[:8]}:1")
    dockerfile = f"FROM busybox\nLABEL of={name}\n"
    ref = f"ref-{uuid.uuid4().hex}"
    words = ("buildx", "build", "--provenance=mode=min", f"--metadata-file={tmp_path}/metadata", "-t", name, "-")
    try:
        engine.docker(*words, input=dockerfile, env={"BUILDX_BUILD_REF": ref})
        [built] = [row for row in api.get("/images/json", manifests=1).json() if name in row["RepoTags"]]
        image, attestation = built["Manifests"]
        assert (image["Kind"], attestation["Kind"]) == ("image", "attestation")
        assert attestation["AttestationData"] == {"For": image["ID"]}
        assert attestation["Available"]
        assert len(api.get(f"/images/{name}/json").json()["Identity"]["Build"]) == 1
        [statement] = api.get(f"/images/{name}/attestations", statement="true").json()
        assert statement["PredicateType"] == statement["Statement"]["predicateType"]
        assert statement["Statement"]["subject"][0]["digest"]["sha256"] == image["ID"].removeprefix("sha256:")
        engine.docker("push", "-q", name)
        identity = api.get(f"/images/{name}/json").json()["Identity"]
        assert identity["Pull"] == [{"Repository": name.rpartition(":")[0]}]
        engine.docker("rmi", name)
        engine.docker("pull", "-q", name)
        # The pull fetches the attestation too, and so the whole index can be pushed again.
        assert api.get(f"/images/{name}/attestations", statement="true").json() == [statement]
        pulled = api.get(f"/images/{name}/json").json()
        assert pulled["Id"] == built["Id"]
        assert pulled["Identity"]["Pull"] == identity["Pull"]
        engine.docker("push", "-q", name)
    finally:
        engine.docker("rmi", "-f", name, check=False)


def test_grpc_without_an_upgrade(engine: Engine) -> None:
    """A client of gRPC connects to the API's socket itself: HTTP/2 from the first byte."""
    with grpc.insecure_channel(f"unix:{engine.api.path}") as channel:
        assert isinstance(Control(channel).history(), list)
        none = channel.unary_unary(
            "/moby.buildkit.v1.Control/None", request_serializer=None, response_deserializer=None
        )
        with pytest.raises(grpc.RpcError) as caught:
            none(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert engine.api.get("/_ping").status == 200
