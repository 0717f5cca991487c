"""Errors of exchanges with a registry, and the reading of response bodies."""

import asyncio
import errno
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from engine.common import jsontext, timeouts
from engine.common.errors import Kind, Reason, WharfError

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")

timeouts.define("registry.connect", 30.0)
timeouts.define("registry.answer", 60.0)  # no bytes arrive, or none can be sent
timeouts.define("registry.wait", 60.0)  # the longest wait for a Retry-After

_BODY_MAX = 1 << 20
_TEXT_SHOWN = 500
_DIAL = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
_PIECE = 1 << 20
#: OpenSSL's reasons for an answer that is no TLS record.
_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"))


class RegistryError(WharfError):
    """A registry's refusal; ``status`` is its HTTP status, 0 if it did not answer. ``again``: a retry may succeed,
    after ``after`` seconds if the registry said so."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int = 0,
        again: bool = False,
        after: float = 0,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(kind, message, reason=reason)
        self.status = status
        self.again = again
        self.after = after


def kind_of(status: int) -> Kind:
    if status == 404:
        return Kind.NOT_FOUND
    if status == 401:
        return Kind.UNAUTHENTICATED
    if status == 403:
        return Kind.PERMISSION_DENIED
    if status == 429 or status >= 500:
        return Kind.INTERNAL  # dockerd answers 500: this engine itself is available
    return Kind.INVALID_ARGUMENT


def error_text(body: bytes) -> str:
    """The errors in a registry's response, ``code: message``, in Docker's words; "" if it has none."""
    return "\n".join(f"{code.lower().replace('_', ' ')}: {message}" for code, message in _errors(body))[:2000]


def _errors(body: bytes) -> list[tuple[str, str]]:
    """(code, message) of each error of a registry's answer; [] if it is in another form."""
    try:
        document: Any = jsontext.loads(body)
        errors = document.get("errors") or ()
        return [(str(each.get("code", "UNKNOWN")), str(each.get("message") or "unknown error")) for each in errors]
    except (ValueError, AttributeError, TypeError):
        return []


def details(body: bytes) -> str:
    """The field ``details`` of a JSON object, which some servers send instead of a list of errors; "" without it."""
    try:
        document: Any = jsontext.loads(body)
        found = document.get("details")
    except (ValueError, AttributeError):
        return ""
    return found[:_TEXT_SHOWN] if isinstance(found, str) else ""


def _limit_text(body: bytes) -> str:
    """The text of a 429 without a list of errors, as dockerd reads it: ``details``, or a body that is no JSON."""
    try:
        jsontext.loads(body)
    except ValueError:
        return body[:_TEXT_SHOWN].decode(errors="replace").strip()
    return details(body)


def _reason(body: bytes) -> Reason | None:
    codes = {code.upper() for code, _ in _errors(body)}
    return next((each for each in (Reason.NAME_UNKNOWN, Reason.MANIFEST_UNKNOWN) if each.value in codes), None)


def refusal(method: str, url: str, response: "httpx.Response", body: bytes) -> RegistryError:
    """The error for an unexpected status, with the registry's own message if it has one."""
    status = response.status_code
    message = error_text(body)
    if not message and status == 401:
        message = "unauthorized: authentication required"
    if not message and status == 429 and (text := _limit_text(body)):
        message = f"toomanyrequests: {text}"
    if not message:
        shown = urlsplit(url)._replace(query="", fragment="").geturl()
        message = f"unexpected status from {method} request to {shown}: {status} {response.reason_phrase}"
    return RegistryError(
        kind_of(status),
        message,
        status=status,
        again=status in (408, 429) or status >= 500,
        after=retry_after(response.headers.get("retry-after", "")),
        reason=_reason(body),
    )


@contextmanager
def during(method: str, url: str) -> Iterator[None]:
    """A failure while a request waits for its authorization is reported for that request, as Go does."""
    try:
        yield
    except RegistryError as error:
        shown = urlsplit(url)._replace(query="", fragment="").geturl()
        error.message = f'{method.capitalize()} "{shown}": {error.message}'
        error.args = (error.message,)
        raise


def retry_after(value: str) -> float:
    """Seconds of a Retry-After in either form; 0 for none, at most the deadline ``registry.wait``."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        from email.utils import parsedate_to_datetime  # rarely needed, and large

        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), timeouts.seconds("registry.wait"))


async def pause(attempt: int, error: WharfError) -> None:
    """Waits between two attempts: the time that the registry asked for, else an increasing one with jitter."""
    after = error.after if isinstance(error, RegistryError) else 0.0
    await asyncio.sleep(after or min(0.25 * 2**attempt, 10.0) * random.uniform(0.75, 1.25))


async def retried(
    step: Callable[[], Awaitable[_T]],
    attempts: int,
    *,
    unreachable: bool = True,
    on_retry: Callable[[], object] = lambda: None,
) -> _T:
    """Run ``step`` until it succeeds, up to ``attempts`` times, while its error may be temporary. ``unreachable``: also
    if the registry did not answer.

    :raises RegistryError: of the last attempt.
    """
    attempt = 0
    while True:
        try:
            return await step()
        except RegistryError as error:
            attempt += 1
            if not error.again or attempt >= attempts or not (error.status or unreachable):
                raise
            last = error
        on_retry()
        await pause(attempt - 1, last)


async def limited(response: "httpx.Response", limit: int = _BODY_MAX) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for piece in pieces(response):
        size += len(piece)
        if size > limit:
            raise RegistryError(Kind.INVALID_ARGUMENT, "the registry's answer is too long", status=response.status_code)
        parts.append(piece)
    return b"".join(parts)


async def pieces(response: "httpx.Response") -> AsyncIterator[bytes]:
    import httpx

    try:
        async for piece in response.aiter_raw(None if "bulk" in response.extensions else _PIECE):
            yield piece
    except httpx.HTTPError as error:
        raise from_httpx_error(error, response.request.method, str(response.request.url)) from None


def from_httpx_error(error: "httpx.HTTPError", method: str, url: str) -> RegistryError:
    """A failed exchange in Go's form, ``Get "https://host/…": reason``, without the query, which may contain
    secrets."""
    import httpx

    shown = urlsplit(url)._replace(query="", fragment="").geturl()
    verb = method.capitalize()
    if isinstance(error, httpx.ConnectTimeout):
        name = "registry.connect"
    elif isinstance(error, httpx.TimeoutException):
        name = "registry.answer"
    else:
        reason = _connect_error(error, url) or str(error) or type(error).__name__
        tls = next((found for found in _chain(error) if isinstance(found, ssl.SSLError)), None)
        if isinstance(tls, ssl.SSLCertVerificationError):
            reason = f"tls: failed to verify certificate: {reason}"
        elif tls is not None and tls.reason in _NO_TLS:
            reason = "http: server gave HTTP response to HTTPS client"
        elif isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
            reason = f"unexpected EOF ({reason})"
        return RegistryError(Kind.INTERNAL, f'{verb} "{shown}": {reason}', again=True)
    return RegistryError(
        Kind.DEADLINE_EXCEEDED,
        f'{verb} "{shown}": {name}: nothing for {timeouts.seconds(name):g} s',
        again=True,
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then its causes and contexts."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _connect_error(error: "httpx.HTTPError", url: str) -> str:
    """Go's words for a failed connection attempt; "" for another failure."""
    cause = next((found for found in _chain(error) if isinstance(found, OSError) and found.errno), None)
    parts = urlsplit(url)
    if isinstance(cause, socket.gaierror):
        unknown = cause.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return f"dial tcp: lookup {parts.hostname}: {'no such host' if unknown else cause.strerror}"
    if not isinstance(cause, OSError) or cause.errno not in _DIAL:
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"dial tcp {parts.hostname}:{port}: connect: {os.strerror(cause.errno).lower()}"
