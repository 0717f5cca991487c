"""Authorization plugins: each request and each response of the API is shown to all of them, in the configured order.

The interface is ``authz`` with the methods ``AuthZPlugin.AuthZReq``, before a request is handled, and
``AuthZPlugin.AuthZRes``, before its response is sent. The answer is ``{"Allow": true}``, or the reason in ``Msg``.
Everything else denies: a plugin that can't be reached, that answers with an error or with something else, or not in
time. The JSON is dockerd's (https://docs.docker.com/engine/extend/plugins_authorization/).

Imported when the first plugin is configured.
"""

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from server.plugins.client import Unreachable
from server.plugins.discovery import Plugins

log = logging.getLogger(__name__)

_INTERFACE = "authz"
_REQUEST, _RESPONSE = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"
# One call of one plugin; it may ask a directory service.
_DEADLINE = "plugin.authorize"
timeouts.define(_DEADLINE, 60.0)
# Seconds before the next attempt to find or to reach a plugin: one that is restarted denies nothing.
_PAUSES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class AuthorizedRequest:
    """What a plugin is shown of a request.

    ``user``: the common name in the client's certificate; "" without one. ``uri``: the target as the client sent it.
    ``body``: b"" if there is none, or if it is not shown. ``certificates``: of the client, in PEM.
    """

    method: str
    uri: str
    user: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    certificates: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AuthorizedResponse:
    """What a plugin is shown of a response. ``status``: 0 if it was sent already, or if an error is answered."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class AuthorizationPlugins:
    """The configured plugins. All of them must allow a request, and then its response."""

    def __init__(self, names: Sequence[str], plugins: Plugins) -> None:
        """``names``: in the order of the calls; a repeated one counts once."""
        self._names = tuple(dict.fromkeys(names))
        self._plugins = plugins

    async def check(self) -> None:
        """Finds and activates all plugins, and waits some seconds for one that starts.

        :raises WharfError: there is no plugin of a name, or it is of another interface or does not answer.
        """
        for name in self._names:
            await self._retried(name)

    async def authorize_request(self, request: AuthorizedRequest) -> None:
        """:raises WharfError: PERMISSION_DENIED: a plugin denies; INTERNAL: it fails."""
        await self._authorize(_REQUEST, _shown(request))

    async def authorize_response(self, request: AuthorizedRequest, response: AuthorizedResponse) -> None:
        """:raises WharfError: as :meth:`authorize_request`."""
        await self._authorize(_RESPONSE, _shown(request) | _shown_response(response))

    async def _authorize(self, method: str, document: Mapping[str, object]) -> None:
        for name in self._names:
            try:
                allowed, message = _verdict(method, await self._retried(name, method, document))
            except WharfError as error:
                raise internal(f"plugin {name} failed with error: {error.message}") from error
            if not allowed:
                raise WharfError(Kind.PERMISSION_DENIED, f"authorization denied by plugin {name}: {message}")

    async def _retried(
        self, name: str, method: str = "", document: Mapping[str, object] | None = None
    ) -> Mapping[str, Any]:
        """Finds the plugin, and calls it if a method is given; again after pauses while it can't be reached."""
        pauses = iter(_PAUSES)
        while True:
            try:
                client = await self._plugins.get(name, _INTERFACE, deadline=_DEADLINE)
                return await client.answer(method, document, deadline=_DEADLINE) if method else {}
            except WharfError as error:
                pause = next(pauses, 0.0)
                absent = isinstance(error, Unreachable) or self._plugins.find(name) is None
                if not absent or not pause:
                    raise
                log.warning("plugin %s: %s; retrying in %g s", name, error.message, pause)
                await asyncio.sleep(pause)


def _verdict(method: str, answer: Mapping[str, Any]) -> tuple[bool, str]:
    """``Allow`` and ``Msg``; the names in any case, as Go's decoder accepts them.

    :raises WharfError: INTERNAL: values of other types.
    """
    values = {name.lower(): value for name, value in answer.items()}
    allowed, message = values.get("allow") or False, values.get("msg") or ""
    if not isinstance(allowed, bool) or not isinstance(message, str):
        raise internal(f"{method}: the answer is malformed")
    return allowed, message


def _shown(request: AuthorizedRequest) -> dict[str, object]:
    """Empty values are omitted."""
    values: dict[str, object] = {
        "User": request.user,
        "UserAuthNMethod": "TLS" if request.certificates else "",
        "RequestMethod": request.method,
        "RequestUri": request.uri,
        "RequestBody": _base64(request.body),
        "RequestHeaders": dict(request.headers),
        "RequestPeerCertificates": [_base64(each.encode()) for each in request.certificates],
    }
    return {name: value for name, value in values.items() if value}


def _shown_response(response: AuthorizedResponse) -> dict[str, object]:
    values: dict[str, object] = {
        "ResponseStatusCode": response.status,
        "ResponseBody": _base64(response.body),
        "ResponseHeaders": dict(response.headers),
    }
    return {name: value for name, value in values.items() if value}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
