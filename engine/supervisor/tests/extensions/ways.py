"""A server, and whether its extensions are used."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from engine.api.client import Engine
from engine.api.extensions import NONE
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.tests import processes

#: Seconds for a test; only a hang ever takes them.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Way:
    server: processes.Server
    extended: bool

    @asynccontextmanager
    async def connected(self, namespace: str = "") -> AsyncIterator[Engine]:
        """A client, in a namespace of its own unless one is named."""
        engine = Engine(self.server.address, namespace=namespace or f"t{uuid4().hex[:12]}")
        try:
            async with asyncio.timeout(PATIENCE):
                await engine.connect(deadline=PATIENCE)
                assert self.extended or self.server.kind == "containerd" or engine.extensions != NONE
                if not self.extended:
                    engine.use(NONE)
                yield engine
        finally:
            await engine.close()

    def run(self, body: Callable[[Engine], Awaitable[None]]) -> None:
        """Runs ``body`` under a lease."""

        async def main() -> None:
            async with self.connected() as engine, engine.leases.acquire():
                await body(engine)

        asyncio.run(main())

    def ingest(self, engine: Engine, ref: str) -> Path:
        """The file of an ingest of our supervisor."""
        return Path(BlobFiles(str(self.server.place / "root")).ingest_data(BlobFiles.folder(engine.namespace, ref)))
