"""/swarm, and what of the swarm ``/info``, ``/_ping`` and ``/events`` show."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.tests.daemon import Daemon

INIT = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"}
NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm'
    " and try again."
)


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that is the only manager of a swarm."""
    answer = daemon.post("/swarm/init", INIT)
    assert answer.status_code == 200, answer.text
    yield daemon
    daemon.post("/swarm/leave", force=1)


def _version(daemon: Daemon) -> int:
    version: int = daemon.get("/swarm").json()["Version"]["Index"]
    return version


def test_a_swarm_from_init_to_leave(daemon: Daemon) -> None:
    node_id = daemon.post("/swarm/init", INIT).json()
    assert re.fullmatch(r"[0-9a-z]{25}", node_id)
    assert daemon.get("/_ping").headers["swarm"] == "active/manager"
    assert daemon.request("HEAD", "/_ping").headers["swarm"] == "active/manager"
    swarm = daemon.get("/swarm").json()
    assert swarm["Spec"] == {
        "Name": "default",
        "Labels": {},
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {
            "SnapshotInterval": 10000,
            "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": 500,
            "ElectionTick": 10,
            "HeartbeatTick": 1,
        },
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    }
    assert (swarm["DefaultAddrPool"], swarm["SubnetSize"], swarm["DataPathPort"]) == (["10.0.0.0/8"], 24, 4789)
    assert swarm["RootRotationInProgress"] is False
    tokens = swarm.pop("JoinTokens")
    assert tokens["Worker"] != tokens["Manager"]
    info = daemon.get("/info").json()["Swarm"]
    assert info["Cluster"] == swarm
    assert [info[key] for key in ("NodeID", "NodeAddr", "LocalNodeState", "ControlAvailable", "Error")] == [
        node_id,
        "192.0.2.1",
        "active",
        True,
        "",
    ]
    assert (info["Nodes"], info["Managers"]) == (1, 1)
    assert info["RemoteManagers"] == [{"NodeID": node_id, "Addr": "192.0.2.1:2377"}]
    status, sentence = daemon.refusal("POST", "/swarm/leave")
    assert (status, "Removing the last manager erases all current state" in sentence) == (503, True)
    assert daemon.post("/swarm/leave", force=1).status_code == 200
    assert daemon.get("/_ping").headers["swarm"] == "inactive"
    assert daemon.get("/info").json()["Swarm"]["LocalNodeState"] == "inactive"
    assert daemon.refusal("GET", "/swarm") == (503, NO_MANAGER)


def test_init_uses_what_is_asked(daemon: Daemon) -> None:
    request = {
        "ListenAddr": "127.0.0.1",
        "AdvertiseAddr": "192.0.2.7:4000",
        "DataPathAddr": "192.0.2.8",
        "DataPathPort": 7777,
        "DefaultAddrPool": ["10.20.0.0/16", "10.30.0.0/16"],
        "SubnetSize": 26,
        "Availability": "drain",
        "Spec": {"Labels": {"a": "b"}, "Orchestration": {"TaskHistoryRetentionLimit": 0}},
    }
    node_id = daemon.post("/swarm/init", request).json()
    swarm = daemon.get("/swarm").json()
    assert (swarm["DefaultAddrPool"], swarm["SubnetSize"]) == (["10.20.0.0/16", "10.30.0.0/16"], 26)
    assert swarm["DataPathPort"] == 7777
    assert (swarm["Spec"]["Labels"], swarm["Spec"]["Orchestration"]) == ({"a": "b"}, {"TaskHistoryRetentionLimit": 0})
    node = daemon.get(f"/nodes/{node_id}").json()
    assert node["Spec"]["Availability"] == "drain"
    assert node["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "192.0.2.7:4000"}
    daemon.post("/swarm/leave", force=1)
    # Clients that don't know a field of init send none.
    daemon.post("/v1.38/swarm/init", request)
    swarm = daemon.get("/swarm").json()
    assert (swarm["DefaultAddrPool"], swarm["SubnetSize"], swarm["DataPathPort"]) == (["10.0.0.0/8"], 24, 4789)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ListenAddr": ""}, 'invalid ListenAddr "": invalid empty address'),
        (
            {"ListenAddr": "nope"},
            "listen address must be an IP address or network interface (with optional port number)",
        ),
        (
            {"ListenAddr": "nope:1:2"},
            "listen address must be an IP address or network interface (with optional port number)",
        ),
        (
            {"AdvertiseAddr": "0.0.0.0"},
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ),
        (
            {"DataPathAddr": "nope"},
            "data path address must be a non-zero IP address or network interface (without a port number)",
        ),
        ({"DefaultAddrPool": ["10.1.0.0/16"], "SubnetSize": 30}, "subnet size is out of range: 30"),
        (
            {"DefaultAddrPool": ["10.1.0.0/25"]},
            'invalid CIDR: "10.1.0.0/25". Subnet size is too small for pool: 24',
        ),
        ({"DefaultAddrPool": ["10.1.0.0"]}, "invalid base pool 10.1.0.0: invalid CIDR address: 10.1.0.0"),
        ({"DataPathPort": 80}, "Datapath port number is not in valid range (1024-49151) : 80"),
        ({"Availability": "x"}, 'invalid Availability: "x"'),
        ({"Spec": {"Name": "x"}}, 'swarm spec must be named "default"'),
        (
            {"Spec": {"CAConfig": {"NodeCertExpiry": 1}}},
            "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
        ),
        ({"Spec": {"CAConfig": {"ExternalCAs": [{"Protocol": "x"}]}}}, 'invalid protocol: "x"'),
    ],
)
def test_init_that_is_refused(shared_daemon: Daemon, change: dict[str, Any], sentence: str) -> None:
    assert shared_daemon.refusal("POST", "/swarm/init", json={**INIT, **change}) == (400, sentence)
    assert shared_daemon.get("/_ping").headers["swarm"] == "inactive"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/swarm/join", {}, 400, 'invalid ListenAddr "": invalid empty address'),
        ("POST", "/swarm/join", {"ListenAddr": "0.0.0.0"}, 400, "at least 1 RemoteAddr is required to join"),
        (
            "POST",
            "/swarm/join",
            {"ListenAddr": "0.0.0.0", "RemoteAddrs": ["192.0.2.9"]},
            400,
            "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
        ),
        ("POST", "/swarm/leave", None, 503, "This node is not part of a swarm"),
        ("POST", "/swarm/unlock", {"UnlockKey": "x"}, 503, NO_MANAGER),
        ("GET", "/swarm/unlockkey", None, 503, NO_MANAGER),
        ("POST", "/swarm/update", {}, 503, NO_MANAGER),
    ],
)
def test_without_a_swarm(
    shared_daemon: Daemon, method: str, path: str, body: dict[str, Any] | None, status: int, sentence: str
) -> None:
    options = {} if body is None else {"json": body}
    assert shared_daemon.refusal(method, path, **options) == (status, sentence)


def test_a_node_is_part_of_one_swarm(manager: Daemon) -> None:
    for path in ("/swarm/init", "/swarm/join"):
        status, sentence = manager.refusal("POST", path, json=INIT)
        assert (status, sentence.startswith("This node is already part of a swarm.")) == (503, True)


def test_update_replaces_the_spec(manager: Daemon) -> None:
    before = manager.get("/swarm").json()
    spec = {"Labels": {"a": "b"}, "Orchestration": {"TaskHistoryRetentionLimit": 3}}
    assert manager.post("/swarm/update", spec, version=_version(manager)).status_code == 200
    after = manager.get("/swarm").json()
    assert after["Version"]["Index"] > before["Version"]["Index"]
    assert after["JoinTokens"] == before["JoinTokens"]
    assert (after["Spec"]["Labels"], after["Spec"]["Orchestration"]) == ({"a": "b"}, {"TaskHistoryRetentionLimit": 3})
    # What an update leaves out is empty afterwards, as in dockerd.
    assert (after["Spec"]["Dispatcher"], after["Spec"]["CAConfig"]) == ({}, {})
    stale = before["Version"]["Index"]
    assert manager.refusal("POST", "/swarm/update", json=spec, params={"version": stale}) == (
        409,
        "rpc error: code = Unknown desc = update out of sequence",
    )


@pytest.mark.parametrize(
    ("query", "body", "sentence"),
    [
        ({}, {}, "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        ({"version": "-1"}, {}, "invalid swarm version '-1': strconv.ParseUint: parsing \"-1\": invalid syntax"),
        (
            {"version": "9" * 25},
            {},
            f"invalid swarm version '{'9' * 25}': strconv.ParseUint: parsing \"{'9' * 25}\": value out of range",
        ),
        ({"version": "1", "rotateWorkerToken": "maybe"}, {}, "invalid value for rotateWorkerToken: maybe"),
        ({"version": "1"}, {"Name": "x"}, 'swarm spec must be named "default"'),
        (
            {"version": "1"},
            {"Dispatcher": {"HeartbeatPeriod": -1}},
            "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative duration",
        ),
        (
            {"version": "1"},
            {"CAConfig": {"SigningCAKey": "x"}},
            "rpc error: code = InvalidArgument desc = if a signing CA key is provided, the signing CA cert must also"
            " be provided",
        ),
    ],
)
def test_updates_that_are_refused(manager: Daemon, query: dict[str, str], body: dict[str, Any], sentence: str) -> None:
    assert manager.refusal("POST", "/swarm/update", params=query, json=body) == (400, sentence)


def test_external_authorities_are_refused_by_name(manager: Daemon) -> None:
    body = {"CAConfig": {"ExternalCAs": [{"Protocol": "cfssl", "URL": "https://192.0.2.3"}]}}
    found = manager.refusal("POST", "/swarm/update", params={"version": _version(manager)}, json=body)
    assert found == (
        501,
        "rpc error: code = Unimplemented desc = external certificate authorities are not part of this engine",
    )


def test_join_tokens_are_rotated(manager: Daemon) -> None:
    first = manager.get("/swarm").json()["JoinTokens"]
    manager.post("/swarm/update", {}, version=_version(manager), rotateWorkerToken="true")
    second = manager.get("/swarm").json()["JoinTokens"]
    assert second["Worker"] != first["Worker"]
    assert second["Manager"] == first["Manager"]
    # The part that identifies the root stays.
    assert second["Worker"].rpartition("-")[0] == first["Worker"].rpartition("-")[0]


def test_the_root_is_rotated(manager: Daemon) -> None:
    before = manager.get("/swarm").json()
    spec = {**before["Spec"], "CAConfig": {"ForceRotate": 1}}
    assert manager.post("/swarm/update", spec, version=before["Version"]["Index"]).status_code == 200
    after = manager.get("/swarm").json()
    assert after["TLSInfo"]["TrustRoot"] != before["TLSInfo"]["TrustRoot"]
    assert after["JoinTokens"]["Worker"].rpartition("-")[0] != before["JoinTokens"]["Worker"].rpartition("-")[0]
    # The request does not wait for the certificates of the nodes.
    while (after := manager.get("/swarm").json())["RootRotationInProgress"]:
        time.sleep(0.01)
    assert after["Spec"]["CAConfig"] == {"ForceRotate": 1}
    assert manager.get("/nodes").json()[0]["Description"]["TLSInfo"] == after["TLSInfo"]
    # The same number rotates nothing.
    manager.post("/swarm/update", spec, version=after["Version"]["Index"])
    assert manager.get("/swarm").json()["TLSInfo"] == after["TLSInfo"]


def test_a_root_of_the_client(manager: Daemon) -> None:
    from server.swarm import certificates

    root = certificates.make_root()
    config = {"SigningCACert": root.certificate, "SigningCAKey": root.key}
    manager.post("/swarm/update", {"CAConfig": config}, version=_version(manager))
    after = manager.get("/swarm").json()
    assert after["TLSInfo"]["TrustRoot"] == root.certificate
    assert after["Spec"]["CAConfig"] == {}
    found = manager.refusal(
        "POST",
        "/swarm/update",
        params={"version": _version(manager)},
        json={"CAConfig": {**config, "SigningCAKey": certificates.make_root().key}},
    )
    assert found == (400, "rpc error: code = InvalidArgument desc = tls: private key does not match public key")


def test_autolock(manager: Daemon) -> None:
    assert manager.get("/swarm/unlockkey").json() == {"UnlockKey": ""}
    assert manager.refusal("POST", "/swarm/unlock", json={"UnlockKey": "x"}) == (409, "swarm is not locked")
    spec = {"EncryptionConfig": {"AutoLockManagers": True}}
    manager.post("/swarm/update", spec, version=_version(manager))
    first = manager.get("/swarm/unlockkey").json()["UnlockKey"]
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", first)
    manager.post("/swarm/update", spec, version=_version(manager), rotateManagerUnlockKey="1")
    assert manager.get("/swarm/unlockkey").json()["UnlockKey"] != first
    manager.post("/swarm/update", {}, version=_version(manager))
    assert manager.get("/swarm/unlockkey").json() == {"UnlockKey": ""}


def test_users_see_the_swarm_as_on_a_worker(daemon: Daemon) -> None:
    daemon.restrict({"roles": {"student": {}}, "users": {"1001": "student"}})
    user = daemon.as_uid(1001)
    found = user.refusal("POST", "/swarm/init", json=INIT)
    assert found == (403, "POST /swarm/init is for administrators of this engine")
    daemon.post("/swarm/init", INIT)
    daemon.post("/secrets/create", {"Name": "one", "Data": "YQ=="})
    for path in ("/swarm", "/swarm/unlockkey", "/nodes", "/nodes/self", "/secrets", "/secrets/one", "/configs"):
        assert user.refusal("GET", path) == (403, f"GET {_pattern(path)} is for administrators of this engine")
    info = user.get("/info").json()["Swarm"]
    assert (info["LocalNodeState"], info["ControlAvailable"], "Cluster" in info) == ("active", False, False)
    assert [event for event in user.events() if event["scope"] == "swarm"] == []
    assert [event["Type"] for event in daemon.events(scope=["swarm"])].count("secret") == 1


def _pattern(path: str) -> str:
    return re.sub(r"/(self|one)\Z", "/{id}", path)
