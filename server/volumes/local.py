"""The ``local`` driver: a directory per volume below the data root, or a file system mounted on it.

``type``, ``device`` and ``o`` are mount(2)'s arguments, as in dockerd: the file system is mounted when the first
container that uses the volume starts, and unmounted after the last. A name in ``addr=`` of an nfs or cifs volume is
resolved here, because mount(2) accepts only addresses.
"""

import asyncio
import errno
import ipaddress
import os
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from engine.common.errors import internal, invalid
from engine.common.system import linux, mounts, private, projectquota
from engine.common.threads import run_in_thread
from server.units import parse_size
from server.volumes.mountopts import split_options

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_OPTIONS = ("type", "o", "device", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class LocalDriver:
    """Volumes below ``root`` (``<data>/volumes``), those of an owner below ``@owner``; see
    :class:`server.volumes.base.Driver`.

    ``owner``: uid and gid of the administrators' containers' root, if it is not the host's.
    """

    name = "local"
    scope = "local"

    def __init__(self, root: Path, owner: tuple[int, int] | None = None) -> None:
        self._root = root
        self._owner = owner

    def directory(self, name: str) -> str:
        """The directory of the volume's content."""
        return f"{self._root}/{name}/_data"

    async def check(self, name: str, options: Mapping[str, str]) -> None:
        if len(name) == 1:
            raise invalid("volume name is too short, names should be at least two alphanumeric characters")
        if _NAME.fullmatch(name) is None:
            raise invalid(
                f'"{name}" includes invalid characters for a local volume name, only "{_ALLOWED}" are allowed. '
                "If you intended to pass a host directory, use absolute path"
            )
        for option in options:
            if option not in _OPTIONS:
                raise invalid(f'invalid option: "{option}"')
        if options.get("type") == "cifs" and _url_port(options.get("device", "")):
            raise invalid("port not allowed in CIFS device URL, include 'port' in 'o='")
        if "size" in options:
            private.make_directory(self._root, 0o701)
            if not await asyncio.to_thread(projectquota.supported, str(self._root)):
                raise invalid("quota size requested but no quota support")
            try:
                parse_size(options["size"])
            except ValueError as error:
                raise invalid(str(error)) from None
        for option, needed in _NEEDS.items():
            if option in options:
                for other in needed:
                    if other not in options:
                        raise invalid(f'missing required option: "{other}"')

    async def create(self, name: str, options: Mapping[str, str]) -> str:
        private.make_directory(self._root, 0o701)
        home = self._root / name
        # The volumes of an owner have the ids of containers on disk: a set-id program of the container's root is one of
        # the host's root, which nobody else may reach.
        private.make_directory(home.parent, 0o700)
        home.mkdir(mode=0o701, exist_ok=True)
        data = home / "_data"
        if not data.is_dir():
            data.mkdir(mode=0o755, exist_ok=True)
            if self._owner is not None and home.parent == self._root:
                os.chown(data, *self._owner)
            if "size" in options:
                await asyncio.to_thread(projectquota.limit, (str(data),), parse_size(options["size"]))
        return str(data)

    async def remove(self, name: str) -> None:
        await run_in_thread(self._remove, name)

    def _remove(self, name: str) -> None:
        home = self._root / name
        if not home.is_dir():
            return
        data = home / "_data"
        if mounts.mounts_under(str(data)):
            # It has no user, so a mount is left over; its content must not be deleted with the volume.
            mounts.unmount_under(str(data))
        real = Path(os.path.realpath(data))
        if self._root.resolve() not in real.parents:
            raise internal(f"unable to remove a directory outside of the local volume root {self._root}: {real}")
        shutil.rmtree(home)

    async def mount(self, name: str, options: Mapping[str, str], *, user: str) -> str:
        data = self.directory(name)
        if options.get("type") or options.get("device"):
            # Resolving a server's name may take long, and the server may never answer.
            await run_in_thread(_mount, data, dict(options))
        return data

    async def unmount(self, name: str, options: Mapping[str, str], *, user: str) -> None:
        if options.get("type") or options.get("device"):
            await run_in_thread(_unmount, self.directory(name))


def _url_port(device: str) -> str:
    host = device.split("://", 1)[-1].lstrip("/").split("/", 1)[0]
    return host.rpartition(":")[2] if ":" in host else ""


def _resolve(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise internal(f"error resolving passed in network volume address: {error}") from error


def _addresses(options: dict[str, str]) -> tuple[str, str]:
    """Device and options with names replaced by addresses."""
    device, text = options.get("device", ""), options.get("o", "")
    kind = options.get("type", "")
    if kind in ("nfs", "nfs4", "cifs"):
        for part in text.split(","):
            if part.startswith("addr="):
                return device, text.replace(part, f"addr={_resolve(part[5:])}", 1)
        if kind == "cifs" and device.startswith("//"):
            host, slash, rest = device[2:].partition("/")
            return f"//{_resolve(host)}{slash}{rest}", text
    return device, text


def _mount(target: str, options: dict[str, str]) -> None:
    if mounts.is_mountpoint(target):
        return
    device, text = _addresses(options)
    flags, propagation, data = split_options(text)
    kind = options.get("type", "")
    try:
        linux.mount(device, target, kind if kind != "none" else None, flags, data or None)
        # mount(2) applies ro and other flags to a bind mount only in a remount.
        if flags & linux.MS_BIND and flags & ~(linux.MS_BIND | linux.MS_REC):
            linux.mount(None, target, None, flags | linux.MS_REMOUNT, None)
        if propagation:
            linux.mount(None, target, None, propagation, None)
    except OSError as error:
        if mounts.is_mountpoint(target):
            linux.umount(target, linux.MNT_DETACH)
        shown = re.sub(r"password=[^,]*", "password=********", data)
        raise internal(
            f"failed to mount local volume: mount {device}:{target}"
            + (f", flags: {flags:#x}" if flags else "")
            + (f", data: {shown}" if shown else "")
            + f": {(error.strerror or str(error)).lower()}"
        ) from error


def _unmount(target: str) -> None:
    try:
        linux.umount(target, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            linux.umount(target, linux.MNT_DETACH)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
