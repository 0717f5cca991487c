"""API 1.46 to 1.55, which Debian's dockerd does not know: what each version adds to or removes from an answer, or
accepts in a request, by the published API description. Everything else stays as in 1.45, which is compared with
dockerd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from compat_tests.support.api import Api
from compat_tests.support.engines import Engine

VERSIONS = [f"1.{minor}" for minor in range(45, 56)]
DESCRIPTOR = ("digest", "mediaType", "size")
OF_CONTAINERS = (
    *("AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "OpenStdin", "StdinOnce"),
    "Tty",
)

#: By answer and version: the added keys, and with "-" the removed ones.
CHANGES: dict[str, dict[str, set[str]]] = {
    "/containers/{}/json": {
        "1.48": {
            *(f"ImageManifestDescriptor.{key}" for key in (*DESCRIPTOR, "platform.architecture", "platform.os")),
            "NetworkSettings.Networks.bridge.GwPriority",
        },
        "1.52": {"Storage.RootFS.Snapshot.Name"},
    },
    "/containers/json": {
        "1.46": {"HostConfig.Annotations.of"},
        "1.48": {
            *(f"ImageManifestDescriptor.{key}" for key in (*DESCRIPTOR, "platform.architecture", "platform.os")),
            "NetworkSettings.Networks.bridge.GwPriority",
        },
        "1.52": {"Health.FailingStreak", "Health.Status"},
    },
    "/images/busybox/json": {
        "1.48": {f"Descriptor.{key}" for key in DESCRIPTOR},
        "1.50": {f"-Config.{key}" for key in OF_CONTAINERS},
    },
    "/images/json": {"1.48": {f"Descriptor.{key}" for key in DESCRIPTOR}},
    "/networks/bridge": {
        "1.48": {"EnableIPv4"},
        "1.52": {f"Status.IPAM.Subnets.SUBNET.{key}" for key in ("DynamicIPsAvailable", "IPsInUse")},
    },
    "/info": {
        "1.46": {f"Containerd.{key}" for key in ("Address", "Namespaces.Containers", "Namespaces.Plugins")},
        "1.49": {
            "FirewallBackend.Driver",
            *(f"-{name}Commit.Expected" for name in ("Containerd", "Init", "Runc")),
            *(f"-RegistryConfig.AllowNondistributableArtifacts{what}" for what in ("CIDRs", "Hostnames")),
        },
        "1.50": {"DiscoveredDevices", "-BridgeNfIptables", "-BridgeNfIp6tables"},
    },
    "/version": {},
    "/_ping": {},
}
#: Since 1.53, of an image that another test has pushed.
ORIGIN = "Identity.Pull.Repository"


def keys(value: Any, path: str = "") -> set[str]:
    """Return every key of an answer, recursively; of a list those of its first element."""
    if isinstance(value, dict) and value:
        named = {"SUBNET" if path.endswith("Subnets") else name: inner for name, inner in value.items()}
        return set().union(*(keys(inner, f"{path}.{name}" if path else name) for name, inner in named.items()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], path)
    return {path}


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"Annotations": {"of": "one"}}}
    identity = str(engine.api.post("/containers/create", body).json()["Id"])
    try:
        assert engine.api.post(f"/containers/{identity}/start").status == 204
        yield identity
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)


def test_answers_change_as_described(engine: Engine, box: str) -> None:
    engine.load_busybox()  # an archive saved by an engine, as other tests load it, has annotations
    for path, changes in CHANGES.items():
        before: set[str] = set()
        for version in VERSIONS:
            answer = Api(engine.resources.socket, version=version).get(path.format(box))
            assert answer.status == 200, answer.body
            now = keys(answer.json()) if path != "/_ping" else set()
            if version != VERSIONS[0]:
                changed = {*(now - before), *(f"-{key}" for key in before - now)} - {ORIGIN}
                assert changed == changes.get(version, set()), (path, version)
            before = now


def test_values_change_as_described(engine: Engine, box: str) -> None:
    def ask(version: str, path: str, **query: object) -> Any:
        return Api(engine.resources.socket, version=version).get(path, **query).json()

    def image(version: str, **query: object) -> Mapping[str, Any]:
        rows = ask(version, "/images/json", **query)
        return next(row for row in rows if "busybox:latest" in row["RepoTags"])

    assert [image(version)["Containers"] for version in ("1.50", "1.51")] == [-1, 1]
    assert "Manifests" not in image("1.46", manifests=1)
    (manifest,) = image("1.47", manifests=1)["Manifests"]
    assert manifest["ImageData"]["Containers"] == [box]
    descriptor = ask("1.48", f"/containers/{box}/json")["ImageManifestDescriptor"]
    assert descriptor["digest"] == manifest["ID"] == manifest["Descriptor"]["digest"]
    assert ask("1.48", "/info")["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] is None
    assert ask("1.49", "/info")["FirewallBackend"]["Driver"] == "nftables"


def test_requests_are_read_as_described(engine: Engine) -> None:
    mount = {"Type": "image", "Source": "busybox", "Target": "/image"}
    options = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["noexec"]]}}
    priority = {"EndpointsConfig": {"bridge": {"GwPriority": 7}}}
    requests: list[tuple[str, dict[str, Any], int]] = [
        ("1.47", {"HostConfig": {"Mounts": [mount]}}, 400),
        ("1.48", {"HostConfig": {"Mounts": [mount]}}, 201),
        ("1.46", {"HostConfig": {"Mounts": [options]}}, 201),
        ("1.48", {"NetworkingConfig": priority}, 201),
    ]
    for version, body, status in requests:
        api = Api(engine.resources.socket, version=version)
        answer = api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
        try:
            assert answer.status == status, (version, body, answer.body)
            if "NetworkingConfig" in body:
                inspected = api.get(f"/containers/{answer.json()['Id']}/json").json()["NetworkSettings"]["Networks"]
                assert inspected["bridge"]["GwPriority"] == 7
        finally:
            if answer.status == 201:
                engine.api.delete(f"/containers/{answer.json()['Id']}", force=1)


def test_a_mac_address_at_connect_since_1_54(engine: Engine, box: str) -> None:
    mac = "02:42:ac:11:00:99"
    body = {"Container": box, "EndpointConfig": {"MacAddress": mac}}
    assert engine.api.post("/networks/create", {"Name": "late"}).status == 201
    try:
        for version, applied in (("1.53", False), ("1.54", True)):
            assert Api(engine.resources.socket, version=version).post("/networks/late/connect", body).status == 200
            endpoint = engine.api.get(f"/containers/{box}/json").json()["NetworkSettings"]["Networks"]["late"]
            assert (endpoint["MacAddress"] == mac) == applied, version
            assert engine.api.post("/networks/late/disconnect", {"Container": box}).status == 200
    finally:
        engine.api.post("/networks/late/disconnect", {"Container": box, "Force": True})
        engine.api.delete("/networks/late")
