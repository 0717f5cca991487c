"""/version, /info and /system/df: shapes by version, and what the configuration changes in them."""

from pathlib import Path
from typing import Any

import pytest

from server.config.types import AddressPool
from server.tests.daemon import Daemon, serving
from server.version import SERVER_VERSION

CONFINED = ["name=seccomp,profile=builtin", "name=cgroupns"]


def test_ping(shared_daemon: Daemon) -> None:
    for method, path, body in (("GET", "/_ping", b"OK"), ("HEAD", "/_ping", b""), ("GET", "/v1.24/_ping", b"OK")):
        answer = shared_daemon.request(method, path)
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["content-type"].startswith("text/plain")
        assert (answer.headers["builder-version"], answer.headers["swarm"]) == ("2", "inactive")


def test_version(shared_daemon: Daemon) -> None:
    document = shared_daemon.get("/version").json()
    assert (document["Version"], document["ApiVersion"], document["MinAPIVersion"]) == (SERVER_VERSION, "1.55", "1.24")
    assert document["Platform"] == {"Name": "Wharf"}
    components = {component["Name"]: component for component in document["Components"]}
    assert components["containerd"]["Version"] == "1.7.24"
    assert components["runc"]["Version"] == "1.1.5"
    assert all(isinstance(value, str) for value in components["Engine"]["Details"].values())


def test_info_counts_containers_and_images(shared_daemon: Daemon) -> None:
    document = shared_daemon.get("/info").json()
    assert document["ID"] == shared_daemon.services.system.identity
    counts = ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images")
    assert [document[key] for key in counts] == [2, 1, 0, 1, 1]
    assert (document["Driver"], document["ServerVersion"], document["OSType"]) == ("native", SERVER_VERSION, "linux")
    assert document["Swarm"]["LocalNodeState"] == "inactive"
    assert document["SecurityOptions"] == CONFINED
    assert ["driver-type", "io.containerd.snapshotter.v1"] in document["DriverStatus"]


@pytest.mark.parametrize(
    ("key", "last", "first"),
    [  # the last version without the key, the first with it
        ("DefaultAddressPools", "1.40", "1.41"),
        ("Containerd", "1.45", "1.46"),
        ("FirewallBackend", "1.48", "1.49"),
        ("DiscoveredDevices", "1.49", "1.50"),
    ],
)
def test_keys_of_info_that_came_with_a_version(shared_daemon: Daemon, key: str, last: str, first: str) -> None:
    assert key not in shared_daemon.get(f"/v{last}/info").json()
    assert key in shared_daemon.get(f"/v{first}/info").json()


@pytest.mark.parametrize(
    ("key", "last", "first"),
    [  # the last version with the key, the first without it
        ("KernelMemory", "1.41", "1.42"),
        ("BridgeNfIptables", "1.49", "1.50"),
        ("ExecutionDriver", "1.24", "1.25"),
    ],
)
def test_keys_of_info_that_went_with_a_version(shared_daemon: Daemon, key: str, last: str, first: str) -> None:
    assert key in shared_daemon.get(f"/v{last}/info").json()
    assert key not in shared_daemon.get(f"/v{first}/info").json()


def test_values_of_info_by_version(shared_daemon: Daemon) -> None:
    oldest, old, new = (shared_daemon.get(f"/v{version}/info").json() for version in ("1.24", "1.43", "1.55"))
    assert oldest["SecurityOptions"] == ["seccomp", "cgroupns"]
    assert old["ContainerdCommit"]["Expected"] == old["ContainerdCommit"]["ID"]
    assert "Expected" not in new["ContainerdCommit"]
    assert all("status" not in runtime for runtime in old["Runtimes"].values())
    assert old["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] == []
    assert "AllowNondistributableArtifactsCIDRs" not in new["RegistryConfig"]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"labels": ("a=b",)}, {"Labels": ["a=b"]}),
        ({"debug": True}, {"Debug": True}),
        ({"log_level": "debug"}, {"Debug": True}),
        ({"experimental": True}, {"ExperimentalBuild": True}),
        ({"log_driver": "local"}, {"LoggingDriver": "local"}),
        ({"http_proxy": "http://ali:secret@proxy:3128"}, {"HttpProxy": "http://xxxxx:xxxxx@proxy:3128"}),
        ({"no_new_privileges": True}, {"SecurityOptions": [*CONFINED, "name=no-new-privileges"]}),
        (
            {"default_address_pools": (AddressPool("10.9.0.0/16", 24),)},
            {"DefaultAddressPools": [{"Base": "10.9.0.0/16", "Size": 24}]},
        ),
    ],
)
def test_info_shows_the_configuration(tmp_path: Path, settings: dict[str, Any], shown: dict[str, Any]) -> None:
    with serving(tmp_path, **settings) as daemon:
        document = daemon.get("/info").json()
    assert {key: document[key] for key in shown} == shown


def test_registries_and_open_sockets_in_info(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "registry_mirrors": ("https://mirror",),
        "insecure_registries": ("lab:5000", "10.0.0.0/8"),
        "hosts": ("unix:///run/x.sock", "tcp://0.0.0.0:2375"),
    }
    with serving(tmp_path, **settings) as daemon:
        document = daemon.get("/info").json()
    found = document["RegistryConfig"]
    assert found["Mirrors"] == found["IndexConfigs"]["docker.io"]["Mirrors"] == ["https://mirror/"]
    assert found["InsecureRegistryCIDRs"] == ["10.0.0.0/8", "::1/128", "127.0.0.0/8"]
    assert found["IndexConfigs"]["lab:5000"] == {"Name": "lab:5000", "Mirrors": [], "Secure": False, "Official": False}
    assert any("API is accessible on http://0.0.0.0:2375 without encryption" in text for text in document["Warnings"])


def test_disk_usage(shared_daemon: Daemon) -> None:
    document = shared_daemon.get("/system/df").json()
    assert {row["Names"][0] for row in document["Containers"]} == {"/created", "/running"}
    [image] = document["Images"]
    assert image["Containers"] == 2
    assert document["LayersSize"] == image["Size"]
    assert (document["Volumes"], document["BuildCache"]) == ([], [])
    only = shared_daemon.get("/system/df", type=["volume", "build-cache"]).json()
    assert only == {"Volumes": [], "BuildCache": [], "VolumeUsage": {}, "BuildCacheUsage": {}}
    assert shared_daemon.refusal("GET", "/system/df?type=nope") == (400, "unknown object type: nope")
    # Older clients ask for everything, whatever they write.
    assert set(shared_daemon.get("/v1.41/system/df", type="nope").json()) >= {"Images", "Containers", "Volumes"}


def test_disk_usage_by_version(shared_daemon: Daemon) -> None:
    old, new = (shared_daemon.get(f"/v{version}/system/df").json() for version in ("1.43", "1.44"))
    assert old["Images"][0]["VirtualSize"] == old["Images"][0]["Size"]
    assert "VirtualSize" not in new["Images"][0]


def test_sums_of_the_disk_usage(shared_daemon: Daemon) -> None:
    old, both = (shared_daemon.get(f"/v{version}/system/df").json() for version in ("1.51", "1.52"))
    assert {name for name in both if name not in old} == {
        *("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")
    }
    assert both["ImageUsage"] == {"ActiveCount": 1, "TotalCount": 1, "TotalSize": both["LayersSize"]}
    assert (both["ContainerUsage"]["ActiveCount"], both["ContainerUsage"]["TotalCount"]) == (1, 2)
    verbose = shared_daemon.get("/system/df", verbose=1).json()
    assert set(verbose) == {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    assert verbose["ImageUsage"]["Items"] == both["Images"]
    assert [row["Names"] for row in verbose["ContainerUsage"]["Items"]] == [row["Names"] for row in both["Containers"]]
    assert "ImageUsage" not in shared_daemon.get("/v1.51/system/df", verbose=1).json()


def test_the_oldest_version_is_a_setting(tmp_path: Path) -> None:
    with serving(tmp_path, min_api_version="1.44") as daemon:
        assert daemon.get("/version").json()["MinAPIVersion"] == "1.44"
        assert daemon.get("/v1.44/info").status_code == 200
        status, sentence = daemon.refusal("GET", "/v1.43/info")
        assert (status, sentence.partition(",")[0]) == (
            400,
            "client version 1.43 is too old. Minimum supported API version is 1.44",
        )
