"""Volume drivers in other processes: Docker's legacy plugin protocol (JSON over HTTP on a socket).

A plugin is found by name: a socket ``<name>.sock`` (or ``<name>/<name>.sock``) in ``/run/docker/plugins``, or a file
``<name>.spec`` with its address in ``/etc/docker/plugins`` or ``/usr/lib/docker/plugins``. It is asked to activate
itself when it is first used.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from engine.errors import Kind, WharfError, internal, not_found
from engine.system import timeouts

SOCKETS = (Path("/run/docker/plugins"),)
SPECS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MAX_ANSWER = 16 << 20


class PluginClient:
    """Calls one plugin. ``address``: ``unix:///path`` or ``tcp://host:port``."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address

    async def call(self, method: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The plugin's answer.

        :raises WharfError: INTERNAL with the plugin's own sentence, or that it can't be reached.
        """
        try:
            async with timeouts.limit("volume.plugin"):
                status, answer = await self._exchange(method, orjson.dumps(body or {}))
        except OSError as error:
            raise internal(f'error while checking plugin "{self.name}": {error.strerror or error}') from error
        try:
            document = orjson.loads(answer) if answer.strip() else {}
        except orjson.JSONDecodeError:
            document = {}
        failure = document.get("Err") if isinstance(document, dict) else ""
        if status >= 400 or failure:
            text = failure or answer.decode(errors="replace").strip() or f"status {status}"
            raise internal(f"{method}: {text}")
        return document if isinstance(document, dict) else {}

    async def _exchange(self, method: str, body: bytes) -> tuple[int, bytes]:
        scheme, _, rest = self._address.partition("://")
        if scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(rest)
        else:
            host, _, port = rest.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
        try:
            # HTTP/1.0: the answer comes in one piece and ends with the connection.
            head = (
                f"POST /{method} HTTP/1.0\r\nHost: plugin\r\nAccept: {_TYPE}\r\nContent-Type: {_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            parts: list[bytes] = []
            while (part := await reader.read(65536)) and sum(map(len, parts)) < _MAX_ANSWER:
                parts.append(part)
        finally:
            writer.close()
        top, _, content = b"".join(parts).partition(b"\r\n\r\n")
        words = top.split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise OSError(f"{self.name} did not answer in HTTP")
        return int(words[1]), content


class PluginDriver:
    """A volume driver behind a client; see :class:`server.services.volumes.base.Driver`."""

    def __init__(self, client: PluginClient, scope: str) -> None:
        self.name = client.name
        self.scope = scope
        self._client = client

    async def check(self, name: str, options: Mapping[str, str]) -> None:
        """The plugin itself decides, at create."""

    async def create(self, name: str, options: Mapping[str, str]) -> str:
        await self._client.call("VolumeDriver.Create", {"Name": name, "Opts": dict(options)})
        return await self._path(name)

    async def remove(self, name: str) -> None:
        await self._client.call("VolumeDriver.Remove", {"Name": name})

    async def mount(self, name: str, options: Mapping[str, str], *, user: str) -> str:
        answer = await self._client.call("VolumeDriver.Mount", {"Name": name, "ID": user})
        return str(answer.get("Mountpoint") or "")

    async def unmount(self, name: str, options: Mapping[str, str], *, user: str) -> None:
        await self._client.call("VolumeDriver.Unmount", {"Name": name, "ID": user})

    async def list(self) -> dict[str, str]:
        answer = await self._client.call("VolumeDriver.List")
        return {str(each["Name"]): str(each.get("Mountpoint") or "") for each in answer.get("Volumes") or ()}

    async def _path(self, name: str) -> str:
        answer = await self._client.call("VolumeDriver.Path", {"Name": name})
        return str(answer.get("Mountpoint") or "")


class LegacyPlugins:
    """Finds plugins in the usual directories and remembers those that were activated."""

    def __init__(self, sockets: Sequence[Path] = SOCKETS, specs: Sequence[Path] = SPECS) -> None:
        self._sockets = sockets
        self._specs = specs
        self._drivers: dict[str, PluginDriver] = {}

    def names(self) -> list[str]:
        """The volume drivers that have been used."""
        return sorted(self._drivers)

    async def driver(self, name: str) -> PluginDriver:
        """:raises WharfError: NOT_FOUND ``plugin "x" not found``, or one that is no volume driver."""
        address = self._find(name)
        if address is None:
            self._drivers.pop(name, None)
            raise not_found(f'plugin "{name}" not found')
        driver = self._drivers.get(name)
        if driver is None:
            client = PluginClient(name, address)
            driver = PluginDriver(client, await _activate(client))
            self._drivers[name] = driver
        return driver

    def address(self, name: str) -> str | None:
        """Where a plugin of any kind listens; None: there is none of this name."""
        return self._find(name)

    def _find(self, name: str) -> str | None:
        if "/" in name or name.startswith("."):
            return None
        for directory in self._sockets:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return f"unix://{path}"
        for directory in self._specs:
            for path in (directory / f"{name}.spec", directory / name / f"{name}.spec"):
                if path.is_file():
                    return path.read_text().strip()
            if (directory / f"{name}.json").is_file():
                raise WharfError(
                    Kind.NOT_IMPLEMENTED, f'plugin "{name}": plugins described by a .json file (TLS) are not supported'
                )
        return None


async def _activate(client: PluginClient) -> str:
    """Activates the plugin; returns its volumes' scope."""
    manifest = await client.call("Plugin.Activate")
    if "VolumeDriver" not in (manifest.get("Implements") or ()):
        raise not_found(f'plugin "{client.name}" does not implement the requested interface')
    try:
        answer = await client.call("VolumeDriver.Capabilities")
    except WharfError:
        # Older plugins don't know the question.
        return "local"
    scope = (answer.get("Capabilities") or {}).get("Scope") or "local"
    return "global" if str(scope).lower() == "global" else "local"
