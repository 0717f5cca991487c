"""Volume drivers in other processes: Docker's legacy plugin protocol (JSON over HTTP on a socket).

A plugin is found by name: a socket ``<name>.sock`` (or ``<name>/<name>.sock``) in ``/run/docker/plugins``, or a file in
``/etc/docker/plugins`` or ``/usr/lib/docker/plugins`` (or in ``<name>/`` there): ``<name>.spec`` with its address, or
``<name>.json`` (see :mod:`plugin_address`). It is activated at its first use. ``WHARF_PLUGINS`` in the environment
names another directory for the sockets.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.common import jsontext, timeouts
from engine.common.errors import Kind, WharfError, internal, not_found
from server.volumes.base import VolumeState
from server.volumes.plugin_address import Address, read_json

log = logging.getLogger(__name__)

SOCKETS = (Path(os.environ.get("WHARF_PLUGINS", "/run/docker/plugins")),)
SPECS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MAX_ANSWER = 16 << 20
#: Bytes, the limit of a file's name.
_MAX_NAME = 250


class Refused(WharfError):
    """The plugin answered with an error."""


class PluginClient:
    """Calls one plugin."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self._address = address

    async def call(
        self, method: str, body: Mapping[str, object] | None = None, *, deadline: str = "volume.plugin"
    ) -> dict[str, Any]:
        """Returns the plugin's answer.

        :raises Refused: with the plugin's own sentence.
        :raises WharfError: INTERNAL: it can't be reached or violates the protocol; DEADLINE_EXCEEDED.
        """
        try:
            async with timeouts.limit(deadline):
                status, answer = await self._exchange(method, jsontext.dumps(body or {}))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise internal(f'error while checking plugin "{self.name}": {reason}') from error
        try:
            document = jsontext.loads(answer) if answer.strip() else {}
        except ValueError:
            document = None
        failure = document.get("Err") if isinstance(document, dict) else ""
        if status >= 400 or failure:
            text = failure or answer.decode(errors="replace").strip() or f"status {status}"
            raise Refused(Kind.INTERNAL, f"{method}: {text}")
        if not isinstance(document, dict):
            raise internal(f'{method}: plugin "{self.name}" did not answer with a JSON object')
        return document

    async def _exchange(self, method: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = await self._address.connect()
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


class PluginDriver:
    """A volume driver behind a client; see :class:`server.volumes.base.RemoteDriver`."""

    def __init__(self, client: PluginClient, scope: str) -> None:
        self.name = client.name
        self.scope = scope
        self._client = client

    async def check(self, name: str, options: Mapping[str, str]) -> None:
        """The plugin itself decides, at create."""

    async def create(self, name: str, options: Mapping[str, str]) -> str:
        if (state := await self.get(name)) is not None:
            return state.mountpoint
        await self._client.call("VolumeDriver.Create", {"Name": name, "Opts": dict(options)})
        return _path(await self._client.call("VolumeDriver.Path", {"Name": name}))

    async def remove(self, name: str) -> None:
        await self._client.call("VolumeDriver.Remove", {"Name": name})

    async def mount(self, name: str, options: Mapping[str, str], *, user: str) -> str:
        path = _path(await self._client.call("VolumeDriver.Mount", {"Name": name, "ID": user}))
        if not path.startswith("/"):
            # A relative path would be resolved in the daemon's own directory.
            raise internal(f'VolumeDriver.Mount: plugin "{self.name}" answered with no absolute path: "{path}"')
        return path

    async def unmount(self, name: str, options: Mapping[str, str], *, user: str) -> None:
        await self._client.call("VolumeDriver.Unmount", {"Name": name, "ID": user})

    async def get(self, name: str) -> VolumeState | None:
        try:
            answer = await self._client.call("VolumeDriver.Get", {"Name": name}, deadline="volume.ask")
        except Refused as refusal:
            # The protocol has no "not found": any refusal means it, as in dockerd.
            log.debug("volume %s: %s", name, refusal.message)
            return None
        volume = answer.get("Volume")
        if not isinstance(volume, dict) or volume.get("Name") not in (name, "", None):
            return None
        return _parse_volume(volume)

    async def list(self) -> dict[str, VolumeState]:
        answer = await self._client.call("VolumeDriver.List", deadline="volume.ask")
        found: dict[str, VolumeState] = {}
        rows = answer.get("Volumes")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(name := row.get("Name"), str) and name:
                found.setdefault(name, _parse_volume(row))
        return found


def _path(answer: Mapping[str, Any]) -> str:
    path = answer.get("Mountpoint")
    return path if isinstance(path, str) else ""


def _parse_volume(volume: Mapping[str, Any]) -> VolumeState:
    """A volume in a plugin's answer; fields of a wrong type count as missing."""
    status = volume.get("Status")
    return VolumeState(_path(volume), _nanoseconds(volume.get("CreatedAt")), status if isinstance(status, dict) else {})


def _nanoseconds(text: object) -> int:
    """A time in RFC 3339 as nanoseconds since the epoch; 0 for none, and for Go's zero time."""
    try:
        moment = datetime.fromisoformat(str(text or "")).astimezone(UTC)
        return max(int(moment.timestamp()), 0) * 10**9
    except (ValueError, OverflowError):  # OverflowError: a year out of range
        return 0


class LegacyPlugins:
    """Finds plugins in the usual directories and caches the activated ones."""

    def __init__(self, sockets: Sequence[Path] = SOCKETS, specs: Sequence[Path] = SPECS) -> None:
        self._sockets = sockets
        self._specs = specs
        # By name: its identity, and the driver, or None for a plugin of another kind.
        self._known: dict[str, tuple[object, PluginDriver | None]] = {}

    def names(self) -> list[str]:
        """The volume drivers that have been used."""
        return sorted(name for name, (_, driver) in self._known.items() if driver is not None)

    async def driver(self, name: str) -> PluginDriver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND ``plugin "x" not found``, or it is not a volume driver.
        """
        address = self._find(name)
        if address is None:
            self._known.pop(name, None)
            raise not_found(f'plugin "{name}" not found')
        driver = await self._activated(name, address, "volume.plugin")
        if driver is None:
            raise not_found(f'plugin "{name}" does not implement the requested interface')
        return driver

    async def drivers(self) -> list[PluginDriver]:
        """All volume drivers, activated; one that doesn't answer is logged and left out."""

        async def one(name: str) -> PluginDriver | None:
            try:
                address = self._find(name)
                return await self._activated(name, address, "volume.ask") if address is not None else None
            except (WharfError, OSError) as error:
                log.warning("volume plugin %s is ignored: %s", name, error)
                return None

        found = await asyncio.gather(*(one(name) for name in sorted(set(self._scan()))))
        return [driver for driver in found if driver is not None]

    def address(self, name: str) -> Address | None:
        """The address of a plugin of any kind; None: there is none of this name."""
        return self._find(name)

    async def _activated(self, name: str, address: Address, deadline: str) -> PluginDriver | None:
        identity = _identity(address)
        known, driver = self._known.get(name, (None, None))
        if known != identity:
            client = PluginClient(name, address)
            scope = await _activate(client, deadline)
            driver = PluginDriver(client, scope) if scope else None
            self._known[name] = (identity, driver)
        return driver

    def _scan(self) -> Iterator[str]:
        """The names of all plugins, including those in their own directories."""
        sockets = [(directory, ".sock") for directory in self._sockets]
        files = [(directory, suffix) for directory in self._specs for suffix in (".spec", ".json")]
        for directory, suffix in sockets + files:
            try:
                entries = list(os.scandir(directory))
            except OSError:
                continue
            for entry in entries:
                if entry.name.endswith(suffix):
                    yield entry.name.removesuffix(suffix)
                elif entry.is_dir() and os.path.exists(f"{entry.path}/{entry.name}{suffix}"):
                    yield entry.name

    def _find(self, name: str) -> Address | None:
        """Finds a plugin's socket or file.

        :raises WharfError: INTERNAL: its file is malformed.
        """
        if "/" in name or name.startswith(".") or len(os.fsencode(name)) > _MAX_NAME:
            return None
        for directory in self._sockets:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return Address(f"unix://{path}")
        for directory in self._specs:
            for parent in (directory, directory / name):
                if (path := parent / f"{name}.spec").is_file():
                    return Address(path.read_text().strip())
                if (path := parent / f"{name}.json").is_file():
                    try:
                        return read_json(path)
                    except (OSError, ValueError) as error:
                        raise internal(f'plugin "{name}": {path}: {error}') from error
        return None


def _identity(address: Address) -> object:
    """The address and, for a socket, its inode: a new socket may be another plugin's."""
    scheme, _, path = address.url.partition("://")
    if scheme == "unix":
        with contextlib.suppress(OSError):
            return address, os.stat(path).st_ino
    return address


async def _activate(client: PluginClient, deadline: str) -> str:
    """Activates the plugin; returns its volumes' scope, "" for a plugin of another kind."""
    manifest = await client.call("Plugin.Activate", deadline=deadline)
    implements = manifest.get("Implements")
    if not isinstance(implements, list) or "VolumeDriver" not in implements:
        return ""
    try:
        answer = await client.call("VolumeDriver.Capabilities", deadline=deadline)
    except WharfError:
        # Older plugins don't implement this method.
        return "local"
    capabilities = answer.get("Capabilities")
    scope = capabilities.get("Scope") if isinstance(capabilities, dict) else ""
    return "global" if str(scope).lower() == "global" else "local"
