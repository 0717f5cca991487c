"""What all listening sockets of the daemons and of wharf-proxy have in common. Imports nothing."""

BACKLOG = 65_535
"""Connections that wait for their ``accept``: as many as ``net.core.somaxconn`` allows, since a full queue refuses
clients of a unix socket with EAGAIN and drops those of TCP. ``engine.shim.protocol`` has the same constant."""
