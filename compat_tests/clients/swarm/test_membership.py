"""``docker swarm`` init, leave, unlock, and restarts of the daemon."""

from __future__ import annotations

import json
import re
from typing import Any

from compat_tests.clients.swarm.conftest import INIT
from compat_tests.support.engines import Engine

TOKEN = r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}"
KEY = r"SWMKEY-1-[A-Za-z0-9+/]{43}"


def _info(engine: Engine) -> Any:
    return json.loads(engine.docker("info", "--format", "{{json .Swarm}}").stdout)


def test_init_and_leave(own_engine: Engine) -> None:
    made = own_engine.docker(*INIT).stdout
    found = re.search(r"current node \(([0-9a-z]{25})\) is now a manager", made)
    assert found is not None, made
    assert re.search(rf"docker swarm join --token {TOKEN} 127\.0\.0\.1:2377", made)
    info = _info(own_engine)
    assert (info["LocalNodeState"], info["NodeID"], info["Managers"]) == ("active", found[1], 1)
    shown = own_engine.docker("info").stdout
    for line in ("Swarm: active", "Is Manager: true", "Node Address: 127.0.0.1", "Autolock Managers: false"):
        assert line in shown
    again = own_engine.docker(*INIT, check=False)
    assert "This node is already part of a swarm" in again.output
    refused = own_engine.docker("swarm", "leave", check=False)
    assert "Removing the last manager erases all current state of the swarm" in refused.output
    assert own_engine.docker("swarm", "leave", "--force").stdout == "Node left the swarm.\n"
    assert _info(own_engine)["LocalNodeState"] == "inactive"
    assert not (own_engine.resources.root / "data/swarm").exists()
    assert "not part of a swarm" in own_engine.docker("swarm", "leave", "--force", check=False).output


def test_the_daemon_restarts(own_engine: Engine) -> None:
    own_engine.docker(*INIT)
    own_engine.docker("secret", "create", "--label", "a=b", "password", "-", input="secret")
    before = _info(own_engine), own_engine.docker("secret", "inspect", "password").stdout
    own_engine.restart()
    assert (_info(own_engine), own_engine.docker("secret", "inspect", "password").stdout) == before
    own_engine.kill("wharfd")
    own_engine.start()
    assert (_info(own_engine), own_engine.docker("secret", "inspect", "password").stdout) == before
    own_engine.docker("swarm", "leave", "--force")


def test_autolock(own_engine: Engine) -> None:
    made = own_engine.docker(*INIT, "--autolock").stdout
    key = re.search(KEY, made)
    assert key is not None, made
    own_engine.docker("config", "create", "settings", "-", input="secret settings")
    assert own_engine.docker("swarm", "unlock-key", "-q").stdout.strip() == key[0]
    own_engine.restart()
    assert _info(own_engine)["LocalNodeState"] == "locked"
    for command in (("node", "ls"), ("config", "ls"), ("swarm", "ca")):
        refused = own_engine.docker(*command, check=False)
        assert "Swarm is encrypted and needs to be unlocked before it can be used" in refused.output
    # The containers of the engine are not concerned.
    own_engine.docker("run", "--rm", "--network", "none", "busybox", "true")
    assert own_engine.api.post("/swarm/unlock", {"UnlockKey": "SWMKEY-1-" + "A" * 43}).status == 401
    assert own_engine.api.post("/swarm/unlock", {"UnlockKey": key[0]}).status == 200
    assert "settings" in own_engine.docker("config", "ls").stdout
    rotated = own_engine.docker("swarm", "unlock-key", "--rotate", "-q").stdout.strip()
    assert rotated != key[0]
    own_engine.restart()
    assert own_engine.api.post("/swarm/unlock", {"UnlockKey": key[0]}).status == 401
    assert own_engine.api.post("/swarm/unlock", {"UnlockKey": rotated}).status == 200
    own_engine.docker("swarm", "update", "--autolock=false")
    own_engine.restart()
    assert _info(own_engine)["LocalNodeState"] == "active"
    content = b"".join(
        path.read_bytes() for path in (own_engine.resources.root / "data/swarm").rglob("*") if path.is_file()
    )
    for secret in (key[0], rotated, "secret settings", "PRIVATE KEY"):
        assert secret.encode() not in content
        assert secret not in own_engine.log()
    own_engine.docker("swarm", "leave", "--force")


def test_a_locked_swarm_is_left_by_force(own_engine: Engine) -> None:
    own_engine.docker(*INIT, "--autolock")
    own_engine.restart()
    refused = own_engine.docker("swarm", "leave", check=False)
    assert "Please unlock it first or use `--force`" in refused.output
    own_engine.docker("swarm", "leave", "--force")
    assert _info(own_engine)["LocalNodeState"] == "inactive"


def test_a_new_cluster_keeps_the_state(own_engine: Engine) -> None:
    own_engine.docker(*INIT)
    own_engine.docker("config", "create", "settings", "-", input="x")
    before = _info(own_engine)
    own_engine.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", "127.0.0.1:4000")
    after = _info(own_engine)
    assert (after["NodeID"], after["Cluster"]["ID"]) == (before["NodeID"], before["Cluster"]["ID"])
    assert after["RemoteManagers"][0]["Addr"] == "127.0.0.1:4000"
    assert "settings" in own_engine.docker("config", "ls").stdout
    own_engine.docker("swarm", "leave", "--force")
