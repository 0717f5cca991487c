"""Services, mesh ports and addresses on other nodes as JSON documents."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from server.networks.overlay.model import Backend, MeshPort, ServiceAddresses


def encode_services(services: Sequence[ServiceAddresses]) -> bytes:
    return orjson.dumps(services, default=list)


def decode_services(document: bytes) -> tuple[ServiceAddresses, ...]:
    """:raises ValueError, KeyError, TypeError: the document is none of services."""
    rows: list[dict[str, Any]] = orjson.loads(document)
    return tuple(
        ServiceAddresses(
            row["service_id"],
            tuple(row["names"]),
            row["virtual_ip"],
            tuple(Backend(each["name"], each["address"]) for each in row["backends"]),
        )
        for row in rows
    )


def encode_ports(ports: Sequence[MeshPort]) -> bytes:
    return orjson.dumps(ports, default=list)


def decode_ports(document: bytes) -> tuple[MeshPort, ...]:
    """:raises ValueError, KeyError, TypeError: the document is none of mesh ports."""
    rows: list[dict[str, Any]] = orjson.loads(document)
    return tuple(MeshPort(row["protocol"], row["published"], row["target"], tuple(row["backends"])) for row in rows)


def encode_peers(peers: Mapping[str, str]) -> bytes:
    return orjson.dumps(peers)


def decode_peers(document: bytes) -> Mapping[str, str]:
    """:raises ValueError: the document is none of addresses with their nodes."""
    peers: dict[str, str] = orjson.loads(document)
    return peers
