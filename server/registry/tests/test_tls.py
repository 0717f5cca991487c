"""Registries with TLS: accepted certificates, and servers that stall."""

import asyncio
import datetime
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.config.model import Config
from server.registry.auth import ANONYMOUS
from server.registry.client import Repository
from server.registry.reference import Reference
from server.registry.tests.servers import Seen, scripted


def serve(certificate: trustme.LeafCert, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, version in versions.items():
        setattr(context, name, version)
    certificate.configure_cert(context)
    return context


def trusting(folder: Path, address: str, authority: bytes) -> Config:
    """A configuration that verifies this registry with this authority."""
    certs = folder / address
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(authority)
    return Config(certs_dir=folder, max_download_attempts=1)


def ping(config: Config, address: str) -> None:
    async def ask() -> None:
        async with Repository(config, Reference(address, ""), ANONYMOUS) as repository:
            await repository.ping()

    asyncio.run(ask())


def fine(seen: Seen) -> tuple[int, dict[str, str], bytes]:
    return 200, {"content-type": "application/json"}, b"{}"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["127.0.0.1"], ""),
        (["localhost", "127.0.0.1"], ""),
        (["127.0.0.2"], "IP address mismatch"),
        (["localhost"], "IP address mismatch"),
        (["*.0.0.1"], "IP address mismatch"),
        (["registry.example"], "IP address mismatch"),
    ],
)
def test_addresses(tmp_path: Path, names: list[str], reason: str) -> None:
    authority = trustme.CA()
    with scripted(fine, serve(authority.issue_cert(*names))) as server:
        config = trusting(tmp_path, server.address, authority.cert_pem.bytes())
        refused_for(config, server.address, reason)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["localhost"], ""),
        (["other.example"], "Hostname mismatch"),
        (["127.0.0.1"], "Hostname mismatch"),
        (["localhost.example"], "Hostname mismatch"),
    ],
)
def test_names(tmp_path: Path, names: list[str], reason: str) -> None:
    authority = trustme.CA()
    with scripted(fine, serve(authority.issue_cert(*names))) as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        config = trusting(tmp_path, address, authority.cert_pem.bytes())
        refused_for(config, address, reason)


def test_another_authority(tmp_path: Path) -> None:
    with scripted(fine, serve(trustme.CA().issue_cert("127.0.0.1"))) as server:
        config = trusting(tmp_path, server.address, trustme.CA().cert_pem.bytes())
        refused_for(config, server.address, "certificate")


def test_the_common_name_does_not_count(tmp_path: Path) -> None:
    """As in Go: a name only in the subject doesn't count."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "server.pem").write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with scripted(fine, context) as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        refused_for(trusting(tmp_path / "certs", address, pem), address, "Hostname mismatch")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = trustme.CA()
    context = serve(authority.issue_cert("127.0.0.1"), minimum_version=version, maximum_version=version)
    with scripted(fine, context) as server:
        refused_for(trusting(tmp_path, server.address, authority.cert_pem.bytes()), server.address, "")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = serve(
        authority.issue_cert("127.0.0.1"),
        minimum_version=ssl.TLSVersion.TLSv1,
        maximum_version=ssl.TLSVersion.TLSv1_1,
    )
    context.set_ciphers("ALL:@SECLEVEL=0")
    with scripted(fine, context) as server:
        refused_for(trusting(tmp_path, server.address, authority.cert_pem.bytes()), server.address, "rotocol")


def refused_for(config: Config, address: str, reason: str) -> None:
    """Accepted if ``reason`` is empty."""
    if not reason:
        ping(config, address)
        return
    with pytest.raises(WharfError, match=reason) as caught:
        ping(config, address)
    assert caught.value.kind is Kind.INTERNAL


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_stalled_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts._SECONDS, "registry.connect", 0.5)
    with silent() as address:
        config = trusting(tmp_path, address, trustme.CA().cert_pem.bytes())
        with pytest.raises(WharfError, match=r"registry\.connect") as caught:
            ping(config, address)
    assert caught.value.kind is Kind.DEADLINE_EXCEEDED
