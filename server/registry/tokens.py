"""One exchange with a token server: redirects, and its refusals."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from engine.common.errors import Kind
from server.registry.hosts import origin_of
from server.registry.responses import RegistryError, details, error_text, from_httpx_error, limited

if TYPE_CHECKING:
    import httpx

_REDIRECTS = 10
_BODY_SHOWN = 500


async def exchange(
    client_for: Callable[[str], Awaitable["httpx.AsyncClient"]],
    method: str,
    url: str,
    query: list[tuple[str, str]],
    form: dict[str, str] | None,
    headers: dict[str, str],
) -> tuple[int, bytes]:
    """Returns (status, body). Follows redirects of a GET; only the first host gets ``headers``.

    :raises RegistryError: a server that can't be reached, or an invalid URL.
    """
    import httpx

    first = url
    try:
        target = httpx.URL(url)
        for name, value in query:
            target = target.copy_add_param(name, value)
        for _ in range(_REDIRECTS + 1):
            sent = headers if origin_of(str(target)) == origin_of(first) else {}
            client = await client_for(str(target))
            response = await client.send(client.build_request(method, target, headers=sent, data=form), stream=True)
            try:
                location = response.headers.get("location", "")
                if method != "GET" or response.status_code not in (301, 302, 303, 307, 308) or not location:
                    return response.status_code, await limited(response)
            finally:
                await response.aclose()
            following = httpx.URL(urljoin(str(target), location))
            if following.scheme not in ("http", "https") or (target.scheme == "https" and following.scheme == "http"):
                raise RegistryError(Kind.INTERNAL, "the token server redirects to a URL without TLS", status=502)
            target = following
        raise RegistryError(Kind.INTERNAL, f"stopped after {_REDIRECTS} redirects of the token server", status=502)
    except httpx.HTTPError as error:
        down = from_httpx_error(error, method, url)
        down.status = 503  # the registry itself was reached: another endpoint would not help
        raise down from None
    except httpx.InvalidURL:
        raise RegistryError(Kind.INVALID_ARGUMENT, "the token server's URL is invalid", status=502) from None


def refusal(status: int, body: bytes) -> RegistryError:
    """A token server's refusal, in dockerd's words with the server's own message."""
    message = error_text(body)
    if status >= 500:
        # dockerd shows only the status; the server's message is more useful.
        shown = f"received unexpected HTTP status: {_line(status)}"
        return RegistryError(Kind.INTERNAL, f"{shown}: {message}" if message else shown, status=status, again=True)
    if status == 401:
        text = message or f"unauthorized: {details(body) or 'incorrect username or password'}"
        return RegistryError(Kind.UNAUTHENTICATED, text, status=status)
    if not message:
        message = f"unknown: {body[:_BODY_SHOWN].decode(errors='replace').strip() or _line(status)}"
    if status == 403:
        return RegistryError(Kind.PERMISSION_DENIED, message, status=status)
    # The server's own status would be misleading: 404 means a missing image.
    return RegistryError(Kind.INTERNAL, message, status=502, again=status == 429)


def _line(status: int) -> str:
    import httpx

    return f"{status} {httpx.codes.get_reason_phrase(status)}".strip()
