"""A client for one repository of a scripted registry."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from server.config.model import Config
from server.registry.auth import Credentials
from server.registry.client import Repository
from server.registry.reference import parse

T = TypeVar("T")
SECRET = "kept to ourselves"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}).encode()
TYPE = {"content-type": "application/vnd.oci.image.manifest.v1+json"}


def with_repository(
    address: str,
    step: Callable[[Repository], Awaitable[T]],
    *,
    credentials: Credentials | None = None,
    config: Config | None = None,
    push: bool = False,
) -> T:
    config = config or Config(certs_dir=Path("/nonexistent"))

    async def run() -> T:
        reference = parse(f"{address}/team/app:1")
        who = credentials or Credentials()
        async with Repository(config, reference, who, push=push) as repository:
            return await step(repository)

    return asyncio.run(asyncio.wait_for(run(), 60))


def errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
