"""The store of a swarm."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.config.model import Config
from server.config.swarmstore import check_swarm_store
from server.config.types import ConfigError


@pytest.mark.parametrize(
    "store",
    ["auto", "sqlite", "etcd", "https://etcd.example:2379", "https://one.example:2379,https://[2001:db8::1]:2379"],
)
def test_a_store(store: str) -> None:
    check_swarm_store(replace(Config(), swarm_store=store))


@pytest.mark.parametrize(
    "store",
    [
        "",
        "raft",
        "http://192.0.2.1:2379",
        "https://192.0.2.1",
        "https://192.0.2.1:99999",
        "https://user@192.0.2.1:2379",
        "https://192.0.2.1:2379/v3",
        "https://192.0.2.1:2379,sqlite",
    ],
)
def test_no_store(store: str) -> None:
    with pytest.raises(ConfigError, match="invalid swarm-store"):
        check_swarm_store(replace(Config(), swarm_store=store))


def test_files_and_port(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    site = replace(Config(), swarm_store="https://192.0.2.1:2379")
    check_swarm_store(replace(site, swarm_store_ca=str(file), swarm_store_cert=str(file), swarm_store_key=str(file)))
    for config, expected in (
        (replace(site, swarm_store_ca=str(tmp_path / "none")), "no such file"),
        (replace(site, swarm_store_cert=str(file)), "must be given together"),
        (replace(Config(), swarm_store_key=str(file)), "--swarm-store-key requires --swarm-store=https"),
        (replace(Config(), swarm_etcd_peer_port=0), "invalid swarm-etcd-peer-port: 0"),
    ):
        with pytest.raises(ConfigError, match=expected):
            check_swarm_store(config)
