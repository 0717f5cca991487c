"""``docker import`` from a URL: the daemon downloads the archive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from engine.common.urls import parse_url
from server.registry.progress import Report
from server.registry.responses import from_httpx_error, pieces

if TYPE_CHECKING:
    import httpx


def _client() -> "httpx.AsyncClient":
    import httpx

    timeout = httpx.Timeout(timeouts.seconds("registry.answer"), connect=timeouts.seconds("registry.connect"))
    return httpx.AsyncClient(follow_redirects=True, max_redirects=10, timeout=timeout)


async def open_url(source: str) -> tuple[AsyncIterator[bytes], Report]:
    """Open a URL (http without a scheme); return the body, and the report with the download's message.

    :raises WharfError: INVALID_ARGUMENT for an invalid URL; INTERNAL and NOT_FOUND from its server.
    """
    url = source if "://" in source else f"http://{source}"
    parts = parse_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid(f"invalid URL: {source!r}")
    client = await asyncio.to_thread(_client)
    import httpx

    stack = AsyncExitStack()
    await stack.enter_async_context(client)
    try:
        try:
            response = await stack.enter_async_context(client.stream("GET", url))
        except httpx.HTTPError as error:
            raise from_httpx_error(error, "GET", url) from None
        except httpx.InvalidURL:
            raise invalid(f"invalid URL: {source!r}") from None
        if response.status_code >= 400:
            kind = Kind.NOT_FOUND if response.status_code == 404 else Kind.INTERNAL
            raise WharfError(kind, f"failed to GET {url} with status {response.status_code} {response.reason_phrase}")
    except BaseException:
        await stack.aclose()
        raise
    report = Report()
    await report.status(f"Downloading from {url}")
    total = int(response.headers.get("content-length") or 0)

    async def body() -> AsyncIterator[bytes]:
        done = 0
        async with stack:
            async for piece in pieces(response):
                done += len(piece)
                report.bar("Importing", "", done, total)
                yield piece

    return body(), report
