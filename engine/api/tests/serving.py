"""A server of some of containerd's services, for tests of the client."""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from engine.api.rpc import SERVER_LIMITS
from engine.api.serving import Server


@asynccontextmanager
async def serving(path: Path, services: Sequence[ServiceDescriptor], servicer: object) -> AsyncIterator[Server]:
    """Serves these services by one object until the block ends; ``call`` is the headers."""
    server = Server(SERVER_LIMITS)
    for service in services:
        server.add(service, servicer, dict)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    server.listen(listening)
    try:
        yield server
    finally:
        os.unlink(path)
        await server.stop()
