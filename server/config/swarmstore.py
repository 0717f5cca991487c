"""``--swarm-store``: where the managers of a swarm keep its state."""

import os
from urllib.parse import urlsplit

from server.config.model import Config
from server.config.types import ConfigError

_WORDS = ("auto", "sqlite", "etcd")


def check_swarm_store(config: Config) -> None:
    """:raises ConfigError:"""
    port = config.swarm_etcd_peer_port
    if not 0 < port < 1 << 16:
        raise ConfigError(f"invalid swarm-etcd-peer-port: {port}")
    files = {
        "swarm-store-ca": config.swarm_store_ca,
        "swarm-store-cert": config.swarm_store_cert,
        "swarm-store-key": config.swarm_store_key,
    }
    if config.swarm_store in _WORDS:
        for name, path in files.items():
            if path:
                raise ConfigError(f"--{name} requires --swarm-store=https://host:port")
        return
    endpoints = config.swarm_store.split(",")
    for endpoint in endpoints:
        _check_endpoint(config.swarm_store, endpoint)
    if bool(config.swarm_store_cert) != bool(config.swarm_store_key):
        raise ConfigError("--swarm-store-cert and --swarm-store-key must be given together")
    for name, path in files.items():
        if path and not os.path.isfile(path):
            raise ConfigError(f"invalid {name}: {path}: no such file")


def _check_endpoint(text: str, endpoint: str) -> None:
    parts = urlsplit(endpoint)
    try:
        valid = parts.scheme == "https" and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        valid = False
    if not valid or endpoint != f"https://{parts.netloc}" or "@" in parts.netloc:
        raise ConfigError(f'invalid swarm-store: {text}: use "auto", "sqlite", "etcd" or https://host:port[,...]')
