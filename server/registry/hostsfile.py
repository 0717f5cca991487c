"""``certs.d/<host>/hosts.toml``: the mirrors of one registry and its own address, in containerd's format.

Source: containerd's docs/hosts.md. ``push`` in ``capabilities`` is accepted and has no effect on a mirror: images are
pushed to the registry itself.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.common.errors import WharfError, invalid

_FILE = "hosts.toml"
_CAPABILITIES = ("pull", "resolve", "push")
_DEFAULT = "_default"


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the file. ``host`` is "" if the file doesn't give the registry's own address."""

    scheme: str = ""
    host: str = ""
    path: str = "/v2"  # the root of the API
    pulls: bool = True
    resolves: bool = True  # may resolve tags
    skip_verify: bool | None = None
    authorities: tuple[str, ...] = ()  # files of PEM certificates
    clients: tuple[tuple[str, str], ...] = ()  # (certificate, key) files; key "": in the certificate's file
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HostsFile:
    """``mirrors`` in the order of the file; ``server`` is the registry itself."""

    mirrors: tuple[Host, ...]
    server: Host


def read(certs_dir: Path, host: str) -> HostsFile | None:
    """Reads the file of a registry, or of ``_default`` for registries without a folder; None if there is none.

    :raises WharfError: INVALID_ARGUMENT with the file's path if it can't be read or parsed.
    """
    for name in _folders(host):
        path = os.path.join(certs_dir, name, _FILE)
        try:
            with open(path, "rb") as file:
                document = tomllib.load(file)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(os.path.join(certs_dir, name)):
                return None
            continue
        except OSError as error:
            raise invalid(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise invalid(f"failed to decode {path}: {error}") from None
        try:
            return _parse(document, os.path.dirname(path))
        except WharfError as error:
            raise invalid(f"failed to decode {path}: {error.message}") from None
    return None


def _folders(host: str) -> list[str]:
    name, colon, port = host.rpartition(":")
    # Underscores replace the colons around a port on file systems that don't allow colons.
    return [*([f"{name}_{port}_"] if colon and port.isdigit() else []), host, _DEFAULT]


def _parse(document: Mapping[str, Any], folder: str) -> HostsFile:
    hosts = document.get("host", {})
    if not isinstance(hosts, Mapping):
        raise invalid("invalid `host` tree")
    server = document.get("server", "")
    if not isinstance(server, str):
        raise invalid('invalid type for "server"')
    mirrors = tuple(_host(url, table, folder) for url, table in hosts.items())
    return HostsFile(mirrors, _host(server, document, folder))


def _host(url: str, table: object, folder: str) -> Host:
    if not isinstance(table, Mapping):
        raise invalid(f"invalid `host` tree: {url}")
    scheme, host, path = _address(url, override=table.get("override_path") is True)
    capabilities = _strings(table.get("capabilities", []), "capabilities")
    for word in capabilities:
        if word.lower() not in _CAPABILITIES:
            raise invalid(f"unknown capability {word}")
    can = {word.lower() for word in capabilities} or set(_CAPABILITIES)
    skip = table.get("skip_verify")
    if skip is not None and not isinstance(skip, bool):
        raise invalid('invalid type for "skip_verify"')
    header = table.get("header", {})
    if not isinstance(header, Mapping):
        raise invalid('invalid type for "header"')
    return Host(
        scheme=scheme,
        host=host,
        path=path,
        pulls="pull" in can,
        resolves="resolve" in can,
        skip_verify=skip,
        authorities=tuple(os.path.join(folder, name) for name in _strings(table.get("ca", []), "ca")),
        clients=_clients(table.get("client", []), folder),
        headers=tuple((key, value) for key, values in header.items() for value in _strings(values, f"header {key}")),
    )


def _address(url: str, *, override: bool) -> tuple[str, str, str]:
    """(scheme, host, path of the API's root) of a URL; https without a scheme."""
    if not url:
        return "", "", "/v2"
    try:
        parts = urlsplit(url if url.startswith("http") else f"https://{url}")
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:
        known = False
    if not known or parts.username is not None:
        raise invalid(f"unable to parse server {url}")
    path = parts.path.rstrip("/")
    if not override and not path.endswith("/v2"):
        path += "/v2"
    return parts.scheme, parts.netloc, path


def _strings(value: object, name: str) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise invalid(f'invalid type for "{name}"')
    return found


def _clients(value: object, folder: str) -> tuple[tuple[str, str], ...]:
    """A file, a list of files (each with certificate and key), or a list of pairs of files."""
    found: list[tuple[str, str]] = []
    for item in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        names = _strings(item, "client")
        if not 1 <= len(names) <= 2 or (isinstance(item, list) and len(names) != 2):
            raise invalid(f'invalid pair {names} for "client"')
        paths = [os.path.join(folder, name) for name in names]
        found.append((paths[0], paths[1] if len(paths) == 2 else ""))
    return tuple(found)
