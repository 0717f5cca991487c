"""Calls of one plugin: ``POST /<method>`` with a JSON object, answered by a JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from engine.common import jsontext, timeouts
from engine.common.errors import Kind, WharfError, internal
from server.plugins.address import Address

_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MAX_ANSWER = 16 << 20


class Refused(WharfError):
    """The plugin answered with an error. ``status``: of its HTTP response."""

    def __init__(self, kind: Kind, message: str, status: int = 200) -> None:
        super().__init__(kind, message)
        self.status = status


class Unreachable(WharfError):
    """No connection: the plugin has not received the call."""


class PluginClient:
    """Calls one plugin."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self._address = address

    async def call(
        self, method: str, body: Mapping[str, object] | None = None, *, deadline: str = "plugin.call"
    ) -> dict[str, Any]:
        """Returns the plugin's answer. An answer without a body is an empty object.

        :raises Refused: with the plugin's own sentence.
        :raises Unreachable: its socket has no listener, or its certificate is invalid.
        :raises WharfError: INTERNAL: it violates the protocol; DEADLINE_EXCEEDED.
        """
        document = self._decode(method, await self._content(method, body, deadline) or b"{}")
        if failure := document.get("Err"):
            raise Refused(Kind.INTERNAL, f"{method}: {failure}")
        return document

    async def answer(
        self, method: str, body: Mapping[str, object] | None = None, *, deadline: str = "plugin.call"
    ) -> dict[str, Any]:
        """The same for a method whose answer may contain ``Err`` beside its result, and must have a body.

        :raises Refused: the status is not 200; with the plugin's own sentence.
        :raises WharfError: as for :meth:`call`.
        """
        return self._decode(method, await self._content(method, body, deadline))

    def _decode(self, method: str, content: bytes) -> dict[str, Any]:
        if content == b"null":  # to Go's decoder an object without fields
            return {}
        try:
            document = jsontext.loads(content)
        except ValueError:
            document = _first_value(content)
        if not isinstance(document, dict):
            raise internal(f'{method}: plugin "{self.name}" did not answer with a JSON object')
        return document

    async def _content(self, method: str, body: Mapping[str, object] | None, deadline: str) -> bytes:
        """The body of an answer with the status 200."""
        try:
            async with timeouts.limit(deadline):
                status, content = await self._exchange(method, jsontext.dumps(body or {}))
        except (OSError, ValueError) as error:
            raise internal(_failure(self.name, error)) from error
        content = content.strip()
        if status != 200:
            try:
                document = jsontext.loads(content)
            except ValueError:
                document = None
            failure = document.get("Err") if isinstance(document, dict) else ""
            text = failure or content.decode(errors="replace") or f"status {status}"
            raise Refused(Kind.INTERNAL, f"{method}: {text}", status)
        return content

    async def _exchange(self, method: str, body: bytes) -> tuple[int, bytes]:
        try:
            reader, writer = await self._address.connect()
        except OSError as error:
            raise Unreachable(Kind.INTERNAL, _failure(self.name, error)) from error
        try:
            # HTTP/1.0: the response isn't chunked and ends with the connection.
            head = (
                f"POST /{method} HTTP/1.0\r\nHost: plugin\r\nAccept: {_TYPE}\r\nContent-Type: {_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            whole = bytearray()
            while part := await reader.read(65536):
                whole += part
                if len(whole) > _MAX_ANSWER:
                    raise ValueError(f"its answer is longer than {_MAX_ANSWER} bytes")
        finally:
            writer.close()
        top, _, content = bytes(whole).partition(b"\r\n\r\n")
        line, *headers = top.split(b"\r\n")
        words = line.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError("it did not answer in HTTP")
        for header in headers:
            name, _, value = header.partition(b":")
            if name.strip().lower() == b"content-length" and len(content) < int(value):
                raise ValueError("its answer was cut off")
        return int(words[1]), content


def _first_value(content: bytes) -> object:
    """The first JSON value of an answer with more behind it, which Go's decoder does not read; None if it has none."""
    text = jsontext.text(content)
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        found: object = jsontext.loads(text[:end])
    except (ValueError, RecursionError):
        return None
    return found


def _failure(name: str, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f'error while checking plugin "{name}": {reason}'
