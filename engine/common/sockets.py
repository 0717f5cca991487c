"""What sockets of the daemons and of wharf-proxy have in common. Imports nothing."""

BACKLOG = 65_535
"""Connections that wait for their ``accept``: as many as ``net.core.somaxconn`` allows, since a full queue refuses
clients of a unix socket with EAGAIN and drops those of TCP. ``engine.shim.protocol`` has the same constant."""


def join_host_port(host: str, port: int | str) -> str:
    """``host:port`` as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
