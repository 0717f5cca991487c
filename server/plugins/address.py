"""The address of a plugin, from a ``.spec`` or a ``.json`` file.

A ``.json`` file is ``{"Name", "Addr", "TLSConfig": {"InsecureSkipVerify", "CAFile", "CertFile", "KeyFile"}}``; the
file's name counts, not the one inside. An address that begins with ``https`` uses TLS. Without a ``CAFile`` the
plugin's certificate is not verified, as in dockerd: a plugin on the same host is trusted.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engine.common import jsontext

_KEYS = frozenset(("Name", "Addr", "TLSConfig"))
_TLS_KEYS = frozenset(("InsecureSkipVerify", "CAFile", "CertFile", "KeyFile"))


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM; "" if there is none. ``unchecked``: the certificate is not verified."""

    unchecked: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Reads the files.

        :raises OSError: a file can't be read, or is not a certificate (ssl.SSLError).
        """
        context = ssl.create_default_context()
        context.hostname_checks_common_name = False  # as in Go
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.unchecked:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca:
            context.load_verify_locations(self.ca)
        if self.certificate or self.key:
            context.load_cert_chain(self.certificate, self.key or None)
        return context


@dataclass(frozen=True, slots=True)
class Address:
    """``url``: ``unix:///path``, ``tcp://``, ``http://`` or ``https://host:port``."""

    url: str
    tls: Tls = Tls()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the plugin.

        :raises OSError: it can't be reached, or its certificate is invalid.
        :raises ValueError: the address is malformed.
        """
        scheme, _, rest = self.url.partition("://")
        if scheme == "unix":
            return await asyncio.open_unix_connection(rest)
        parts = urlsplit(self.url)
        if not parts.hostname or parts.port is None:
            raise ValueError(f"{self.url!r} names no host and port")
        context = await asyncio.to_thread(self.tls.context) if scheme == "https" else None
        return await asyncio.open_connection(parts.hostname, parts.port, ssl=context)


def read_spec(path: Path) -> Address:
    """Parses a ``.spec`` file.

    :raises OSError: it can't be read.
    :raises ValueError: it is not UTF-8.
    """
    return Address(path.read_text("utf-8").strip())


def read_json(path: Path) -> Address:
    """Parses a ``.json`` file.

    :raises OSError: it can't be read.
    :raises ValueError: it does not describe a plugin.
    """
    document = jsontext.loads(path.read_bytes())
    if not isinstance(document, dict) or not isinstance(url := document.get("Addr"), str) or "://" not in url:
        raise ValueError('there is no address in "Addr"')
    tls = document.get("TLSConfig") or {}
    if not isinstance(tls, dict):
        raise ValueError('"TLSConfig" is not an object')
    if unknown := [*(document.keys() - _KEYS), *(tls.keys() - _TLS_KEYS)]:
        raise ValueError(f'"{unknown[0]}" is unknown')
    files = [str(tls.get(name) or "") for name in ("CAFile", "CertFile", "KeyFile")]
    return Address(url, Tls(bool(tls.get("InsecureSkipVerify")) or not files[0], *files))
