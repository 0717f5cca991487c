"""``docker swarm`` of a manager: join-token, update, ca."""

from __future__ import annotations

import re

from compat_tests.support.engines import Engine

TOKEN = r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}"


def test_join_tokens(swarm: Engine) -> None:
    tokens = {}
    for role in ("worker", "manager"):
        shown = swarm.docker("swarm", "join-token", role).stdout
        assert re.search(rf"docker swarm join --token {TOKEN} 127\.0\.0\.1:2377", shown), shown
        tokens[role] = swarm.docker("swarm", "join-token", "-q", role).stdout
        assert tokens[role].strip() in shown
    rotated = swarm.docker("swarm", "join-token", "--rotate", "-q", "worker").stdout
    assert rotated != tokens["worker"]
    assert swarm.docker("swarm", "join-token", "-q", "manager").stdout == tokens["manager"]
    refused = swarm.docker("swarm", "join", "--token", rotated.strip(), "127.0.0.1:2377", check=False)
    assert "This node is already part of a swarm" in refused.output


def test_update(swarm: Engine) -> None:
    swarm.docker(
        "swarm", "update", "--task-history-limit", "3", "--cert-expiry", "720h", "--dispatcher-heartbeat", "7s"
    )
    shown = swarm.docker("info").stdout
    for line in ("Task History Retention Limit: 3", "Expiry Duration: 4 weeks", "Heartbeat Period: 7 seconds"):
        assert line in shown
    refused = swarm.docker("swarm", "update", "--cert-expiry", "1m", check=False)
    assert "minimum certificate expiry time is: 1h0m0s" in refused.output
    swarm.docker("swarm", "update", "--task-history-limit", "5", "--cert-expiry", "2160h")


def test_the_root_is_rotated(swarm: Engine) -> None:
    first = swarm.docker("swarm", "ca").stdout
    assert first.startswith("-----BEGIN CERTIFICATE-----")
    token = swarm.docker("swarm", "join-token", "-q", "worker").stdout
    shown = swarm.docker("swarm", "ca", "--rotate").stdout
    assert "rotated TLS certificates:" in shown
    rotated = swarm.docker("swarm", "ca").stdout
    assert rotated != first
    assert shown.endswith(rotated)
    assert swarm.docker("swarm", "join-token", "-q", "worker").stdout != token
    external = "protocol=cfssl,url=https://127.0.0.1:1"
    refused = swarm.docker("swarm", "update", "--external-ca", external, check=False)
    assert "external certificate authorities are not part of this engine" in refused.output
