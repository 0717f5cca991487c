"""What goes to and comes from the child process of ``founding``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """``root_certificate`` and ``root_key``: those of the client, in PEM; "": new ones. The other values are those of
    ``certificates.sign``."""

    swarm_id: str
    node_id: str
    lifetime_ns: int
    address: str
    root_certificate: str = ""
    root_key: str = ""


@dataclass(frozen=True, slots=True)
class Founding:
    """``refusal``: why the root of the client is refused; then there is nothing else. ``subject`` and ``public_key``:
    the root's, as in ``certificates.issuer``. ``key``: that of the node's ``certificate``; the times are its."""

    refusal: str = ""
    root_certificate: str = ""
    root_key: str = ""
    subject: str = ""
    public_key: str = ""
    worker_token: str = ""
    manager_token: str = ""
    certificate: str = ""
    key: str = ""
    renew_ns: int = 0
    expires_ns: int = 0
