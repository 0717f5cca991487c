"""The swarm's certificate authority: its root certificate, the certificates of nodes, and the join tokens.

Names and lifetimes are SwarmKit's (ca/certificates.go): the root is ``CN=swarm-ca``; a node's certificate has the
swarm's id as organization, its role as organizational unit and its id as common name. Keys are ECDSA P-256.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api_models.swarm.common import TLSInfo
from server.swarm.model.ids import LENGTH, base36

ROOT_NAME = "swarm-ca"

_ROOT_LIFETIME = timedelta(seconds=630_720_000)
#: A root certificate of a client must be valid for so long.
_MIN_ROOT_LIFETIME = timedelta(days=365)
#: Certificates are valid from this time ago on, because clocks of nodes differ.
_BACKDATE = timedelta(hours=1)
#: The base-36 digits of a SHA-256.
_DIGEST_LENGTH = 50

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class InvalidRoot(Exception):
    """A root certificate or key of a client can't be used; the text is SwarmKit's sentence."""


@dataclass(frozen=True, slots=True)
class Root:
    """The root certificate and its private key, PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate of a node with the root's behind it, and its private key, PEM. ``renew_ns``: when to renew it."""

    certificate: str
    key: str
    renew_ns: int


def make_root() -> Root:
    """A new root certificate, valid for 20 years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Root(_pem(certificate), _private(key))


def read_root(certificate: str, key: str) -> Root:
    """A root that a client brings.

    :raises InvalidRoot: no such pair, or the certificate ends too soon.
    """
    try:
        found = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        raise InvalidRoot("could not parse the desired CA certificate") from None
    if len(found) != 1:
        raise InvalidRoot("the desired CA certificate cannot contain multiple certificates")
    signer = _read_key(key)
    if signer.public_key() != found[0].public_key():
        raise InvalidRoot("tls: private key does not match public key")
    try:
        authority = found[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if not authority:
        raise InvalidRoot("certificate not a CA")
    if found[0].not_valid_after_utc < datetime.now(UTC) + _MIN_ROOT_LIFETIME:
        raise InvalidRoot("CA certificate expires too soon")
    return Root(_pem(found[0]), _private(signer))


def issue(root: Root, *, swarm_id: str, node_id: str, role: str, lifetime_ns: int) -> Issued:
    """A certificate of a node with the role "worker" or "manager", for its server and its clients."""
    signer, key = _read_key(root.key), ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(root.certificate.encode())
    unit = f"swarm-{role}"
    names = [unit, node_id, *([ROOT_NAME] if role == "manager" else [])]
    now = datetime.now(UTC)
    lifetime = timedelta(microseconds=lifetime_ns // 1000)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, swarm_id),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                    x509.NameAttribute(NameOID.COMMON_NAME, node_id),
                ]
            )
        )
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    # Nodes renew at different moments between 50 and 80 % of the lifetime.
    renewed = now + lifetime * (0.5 + 0.3 * secrets.randbelow(1000) / 1000)
    return Issued(_pem(certificate), _private(key), int(renewed.timestamp() * 1e9))


def tls_info(root_certificate: str) -> TLSInfo:
    certificate = x509.load_pem_x509_certificate(root_certificate.encode())
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return TLSInfo(
        trust_root=root_certificate,
        cert_issuer_subject=base64.b64encode(certificate.subject.public_bytes()).decode(),
        cert_issuer_public_key=base64.b64encode(public).decode(),
    )


def join_token(root_certificate: str) -> str:
    """A new token: nodes that join find by it whether they speak to the right swarm, and prove that they may."""
    digest = int.from_bytes(hashlib.sha256(root_certificate.encode()).digest(), "big")
    return f"SWMTKN-1-{base36(digest, _DIGEST_LENGTH)}-{base36(secrets.randbits(128), LENGTH)}"


def issued_by(certificate: str, root_certificate: str) -> bool:
    """Whether the root signed the first certificate of a PEM text."""
    first = x509.load_pem_x509_certificate(certificate.encode())
    try:
        first.verify_directly_issued_by(x509.load_pem_x509_certificate(root_certificate.encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read_key(text: str) -> _Key:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError):
        raise _bad_key() from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _bad_key()
    return key


def _bad_key() -> InvalidRoot:
    return InvalidRoot("tls: failed to parse private key")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: _Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
