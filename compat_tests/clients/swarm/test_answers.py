"""The answers about a new swarm, and what the CLI prints of refusals, beside dockerd's."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from compat_tests.support.engines import Engine

#: The name of the only node.
HOSTNAME = platform.node()


def _types(document: Any) -> Any:
    """A document with the names of types in place of its values."""
    if isinstance(document, dict):
        return {key: _types(value) for key, value in document.items()}
    return [_types(document[0])] if isinstance(document, list) and document else type(document).__name__


def _shown(engine: Engine, path: str) -> Any:
    found = _types(engine.api.get(path).json())
    if path == "/nodes":
        return found
    shown = found["Swarm"] if path == "/info" else found
    # dockerd shows null, if the client sends an empty list, although it uses the same pool.
    del shown.get("Cluster", shown)["DefaultAddrPool"]
    return shown


@pytest.mark.parametrize("path", ["/swarm", "/nodes", "/info"])
def test_fields(swarm: Engine, oracle_swarm: Engine, path: str) -> None:
    assert _shown(swarm, path) == _shown(oracle_swarm, path)


@pytest.mark.parametrize(
    "command",
    [
        ("node", "inspect", "nope"),
        ("node", "demote", HOSTNAME),
        ("node", "update", "--availability", "x", HOSTNAME),
        ("secret", "create", "-x", "/etc/hostname"),
        ("secret", "inspect", "nope"),
        ("secret", "rm", "nope"),
        ("config", "create", "x y", "/etc/hostname"),
        ("config", "rm", "nope"),
        ("swarm", "update", "--cert-expiry", "1m"),
        ("swarm", "update", "--dispatcher-heartbeat", "-1s"),
        ("swarm", "init", "--advertise-addr", "127.0.0.1"),
        ("swarm", "join", "--token", "x", "127.0.0.1"),
        ("swarm", "leave"),
        ("swarm", "unlock-key"),
        ("swarm", "unlock"),
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_refusals(swarm: Engine, oracle_swarm: Engine, command: tuple[str, ...]) -> None:
    mine, theirs = (engine.docker(*command, check=False) for engine in (swarm, oracle_swarm))
    assert (mine.status, mine.output) == (theirs.status, theirs.output)
