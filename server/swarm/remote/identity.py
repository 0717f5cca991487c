"""This node's certificate, its private key, and the root certificates that it trusts, on the node's disk; and what TLS
needs of them.

A manager's private key is sealed by the swarm's data key, so that it can't be read while the swarm is locked. A
worker's is readable for root, as in SwarmKit: a worker has no data key.
"""

import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from api_models.base import OMIT, Int64
from api_models.record import Record, Strings
from engine.common.errors import Kind, WharfError
from server.swarm.files import read_record, write_record
from server.swarm.model.sealer import Sealer
from server.swarmtext import CERTIFICATES_EXPIRED

FILE = "swarm-node.json"
#: A name in the certificates of managers: clients of the managers' port require it.
MANAGER = "swarm-manager"
WORKER = "swarm-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Record):
    """``certificate``: this node's, in PEM, with the intermediate ones of a rotation behind it. ``root``: by which it
    was issued; ``roots``: those that are trusted. One of ``key`` and ``sealed_key`` is the private key. ``renew_ns``:
    when to renew it; ``expires_ns``: when it ends, 0: unknown. ``lifetime_ns``: what the swarm wanted when it was
    issued. ``address``: that of a manager, which the certificate has."""

    certificate: str = ""
    root: str = ""
    roots: Strings = ()
    key: Annotated[str, OMIT] = ""
    sealed_key: Annotated[str, OMIT] = ""
    renew_ns: Int64 = 0
    expires_ns: Annotated[Int64, OMIT] = 0
    lifetime_ns: Int64 = 0
    address: Annotated[str, OMIT] = ""


class Identity:
    """Connections that begin after a change use the new certificate and the new roots; others go on.

    Methods that change something write to the disk: call them in a thread.
    """

    def __init__(self, directory: Path | None, keys: Sealer | None = None) -> None:
        """``directory``: of the swarm's files; None: nothing is written to the disk. ``keys``: of a manager."""
        self._path = None if directory is None else directory / FILE
        self._keys = keys
        self._current = self._read()
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        #: Counts the changes: a client makes new connections when it has another value.
        self.version = 0

    def _read(self) -> Certificate:
        if self._path is None:
            return Certificate()
        try:
            return read_record(self._path, Certificate)
        except (FileNotFoundError, ValueError):
            # A certificate can be issued again.
            return Certificate()

    @property
    def current(self) -> Certificate:
        """An empty one: this node has none."""
        return self._current

    def put(self, certificate: Certificate, key: str) -> None:
        """Replaces the certificate and the private key."""
        if self._keys is not None:
            self._store(replace(certificate, key="", sealed_key=self._keys.seal(key.encode())))
        else:
            self._store(replace(certificate, key=key, sealed_key=""))

    def trust(self, roots: Sequence[str]) -> None:
        """Replaces the trusted root certificates."""
        if tuple(roots) != self._current.roots:
            self._store(replace(self._current, roots=tuple(roots)))

    def _store(self, certificate: Certificate) -> None:
        if self._path is not None:
            write_record(self._path, certificate)
        self._current = certificate
        self._server = self._client = None
        self.version += 1

    def key(self) -> str:
        """The private key in PEM.

        :raises WharfError: it is sealed, and can't be opened.
        """
        current = self._current
        if not current.sealed_key or self._keys is None:
            return current.key
        return self._keys.open(current.sealed_key).decode()

    def server(self) -> ssl.SSLContext:
        """For a server: clients may have a certificate of the swarm, or none.

        :raises WharfError: as ``key``; UNAVAILABLE: this node has no valid certificate.
        """
        context = self._server
        if context is None:
            context = self._context(ssl.PROTOCOL_TLS_SERVER)
            context.verify_mode = ssl.CERT_OPTIONAL
            # A resumed session would keep the certificate of a node that was checked against former roots.
            context.num_tickets = 0
            self._server = context
        return context

    def client(self) -> ssl.SSLContext:
        """For a client, which must give the name that the server's certificate shall have: ``MANAGER``, or the id of a
        node.

        :raises WharfError: as ``key``; UNAVAILABLE: this node has no valid certificate.
        """
        context = self._client
        if context is None:
            context = self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        if not self._current.certificate or not self._current.roots:
            raise WharfError(Kind.UNAVAILABLE, "this node has no certificate of its swarm")
        if 0 < self._current.expires_ns < time.time_ns():
            raise WharfError(Kind.UNAVAILABLE, CERTIFICATES_EXPIRED)
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata="\n".join(self._current.roots))
        # OpenSSL reads the key from a file: this one is in memory.
        fd = os.memfd_create("swarm-node", os.MFD_CLOEXEC)
        with open(fd, "wb", buffering=0) as file:
            file.write(f"{self._current.certificate}\n{self.key()}".encode())
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        return context


def verifying(roots: Sequence[str]) -> ssl.SSLContext:
    """For a client without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata="\n".join(roots))
    return context


def unverified() -> ssl.SSLContext:
    """For a client that checks what it reads by a digest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
