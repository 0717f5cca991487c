"""Contexts at a URL: an archive, or a Dockerfile."""

from engine.common.errors import Kind, WharfError, invalid
from engine.common.urls import parse_url
from server.builder.contexts.stream import extract_or_read


async def download(url: str, root: str) -> tuple[str | None, str]:
    """Extract a URL's archive, or return the text of other content, which is a Dockerfile; and the content's digest.

    :raises WharfError: INTERNAL when the URL cannot be fetched; INVALID_ARGUMENT when the server refuses it, and as
        :func:`extract_or_read`.
    """
    import httpx  # imported here: few builds need it

    try:
        parse_url(url)
    except WharfError as error:
        raise WharfError(Kind.INTERNAL, f"error downloading remote context {url}: {error.message}") from None
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code >= 400:
                words = (await response.aread())[:500].decode(errors="replace")
                status = f"{response.status_code} {response.reason_phrase}"
                raise invalid(
                    f"error downloading remote context {url}: failed to GET {url} with status {status}: {words}"
                )
            return await extract_or_read(response.aiter_bytes(), root)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WharfError(
            Kind.INTERNAL, f"error downloading remote context {url}: {error or type(error).__name__}"
        ) from None
