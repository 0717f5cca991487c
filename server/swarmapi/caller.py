"""The node that calls, by its verified certificate, and what it may call. Sentences are SwarmKit's (ca/auth.go)."""

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from starlette.requests import Request

from server.http.hijack import connection_of
from server.swarm.operations.admission import denied, removed
from server.swarm.remote.identity import MANAGER, WORKER
from server.swarm.state.tables import Tables

_ROLES = {WORKER: "worker", MANAGER: "manager"}


class Access(Enum):
    """Who may call a route. ``ANYONE``: also without a certificate. ``KNOWN``: nodes of the swarm, also while their
    certificate has another role than they shall have. ``NODE``: nodes, but none that is no longer a manager and has a
    manager's certificate. ``MANAGER``: managers."""

    ANYONE = auto()
    KNOWN = auto()
    NODE = auto()
    MANAGER = auto()


@dataclass(frozen=True, slots=True)
class Caller:
    """``role``: of the certificate. ``address``: where the connection comes from. ``certificate``: DER. Without a
    certificate all but the address are empty."""

    node_id: str
    role: str
    swarm_id: str
    address: str
    certificate: bytes = b""
    expires: float = 0.0


def caller_of(request: Request) -> Caller:
    """:raises WharfError: PERMISSION_DENIED: the certificate is none of a node."""
    transport = connection_of(request).transport
    peer = transport.get_extra_info("peername")
    address = str(peer[0]) if peer else ""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    found = tls.getpeercert() if tls is not None else None
    if tls is None or not found:
        return Caller("", "", "", address)
    subject: dict[str, str] = {}
    for names in cast(Sequence[Sequence[tuple[str, str]]], found.get("subject", ())):
        for name, value in names:
            if name in subject:
                raise denied("a name of the certificate's subject is repeated")
            subject[name] = value
    return Caller(
        node_id=subject.get("commonName", ""),
        role=_ROLES.get(subject.get("organizationalUnitName", ""), ""),
        swarm_id=subject.get("organizationName", ""),
        address=address,
        certificate=tls.getpeercert(binary_form=True) or b"",
        expires=ssl.cert_time_to_seconds(str(found.get("notAfter", ""))),
    )


def check(caller: Caller, access: Access, swarm_id: str, tables: Tables | None) -> None:
    """``tables``: the state; None: this node has none, and knows only what the certificate says.

    :raises WharfError: PERMISSION_DENIED.
    """
    if access is Access.ANYONE:
        return
    if not caller.node_id:
        raise denied("no client certificates in request")
    if caller.swarm_id != swarm_id:
        raise denied(f"remote certificate not part of organization: {swarm_id}")
    if caller.expires < time.time():
        raise denied("the remote certificate has expired")
    if caller.role not in (("manager",) if access is Access.MANAGER else ("worker", "manager")):
        raise denied(f"remote certificate not part of OUs: [{MANAGER}]")
    if tables is None:
        return
    node = tables.nodes.find(caller.node_id)
    if node is None:
        raise removed(caller.node_id)
    if access is not Access.KNOWN and caller.role == "manager" != node.spec.role:
        raise denied(f"node {caller.node_id} is no longer a manager")
