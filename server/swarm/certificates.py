"""The swarm's certificate authority: its root certificate, the certificates of nodes, and the join tokens.

Names and lifetimes are SwarmKit's (ca/certificates.go): the root is ``CN=swarm-ca``; a node's certificate has the
swarm's id as organization, its role as organizational unit and its id as common name. Keys are ECDSA P-256.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

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


_TOKEN = re.compile(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})")
#: The most characters of a request for a certificate.
MAX_REQUEST = 16 * 1024
#: The least size of an elliptic curve's key in bits: P-256.
_MIN_CURVE = 256


class InvalidRequest(Exception):
    """A request for a certificate is refused."""


class InvalidToken(Exception):
    """The text is no join token; the sentence is SwarmKit's."""

    def __init__(self) -> None:
        super().__init__("invalid join token")


class InvalidRoot(Exception):
    """A root certificate or key of a client can't be used; the text is SwarmKit's sentence."""


@dataclass(frozen=True, slots=True)
class Root:
    """The root certificate and its private key, PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a certificate (PKCS #10), and the private key that it is for, PEM."""

    csr: str
    key: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The certificate of a node, PEM. ``renew_ns``: when to renew it; ``expires_ns``: when it ends."""

    certificate: str
    renew_ns: int
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate of a node, and its private key, PEM. ``renew_ns``: when to renew it."""

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


def cross_sign(former: Root, root: Root) -> str:
    """The key of ``root`` with a signature of ``former``: a node that trusts only the former root accepts by it the
    certificates that the new one has issued."""
    signer, subject = _read_key(former.key), x509.load_pem_x509_certificate(root.certificate.encode())
    authority = x509.load_pem_x509_certificate(former.certificate.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject.subject)
        .issuer_name(authority.subject)
        .public_key(subject.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _BACKDATE)
        .not_valid_after(min(subject.not_valid_after_utc, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate)


def make_request() -> Request:
    """A new key and the request for its certificate. The authority chooses the subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return Request(csr.public_bytes(serialization.Encoding.PEM).decode(), _private(key))


def requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request. Its subject and its extensions are ignored.

    :raises InvalidRequest: it is malformed, its signature is wrong, or the key is none of ECDSA P-256 or stronger.
    """
    if len(csr) > MAX_REQUEST:
        raise InvalidRequest("the certificate request is too long")
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest("the certificate request can't be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size < _MIN_CURVE:
        raise InvalidRequest("the key of a certificate request must be ECDSA P-256 or stronger")
    if not signed:
        raise InvalidRequest("the signature of the certificate request is wrong")
    return key


def key_id(csr: str) -> str:
    """The id of a node that joins with this request: it follows from the key, so that a request that is repeated
    because its answer was lost makes one node, and nobody else can take the id.

    :raises InvalidRequest: as ``requested_key``.
    """
    public = requested_key(csr).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base36(int.from_bytes(hashlib.sha256(public).digest()[:16], "big"), LENGTH)


def issue(root: Root, *, swarm_id: str, node_id: str, role: str, lifetime_ns: int, address: str = "") -> Issued:
    """As ``sign``, for a new key."""
    request = make_request()
    signed = sign(
        root, request.csr, swarm_id=swarm_id, node_id=node_id, role=role, lifetime_ns=lifetime_ns, address=address
    )
    return Issued(signed.certificate, request.key, signed.renew_ns)


def sign(
    root: Root, csr: str, *, swarm_id: str, node_id: str, role: str, lifetime_ns: int, address: str = ""
) -> Signed:
    """A certificate of a node with the role "worker" or "manager", for its server and its clients. ``address``: the IP
    address at which clients that check the address reach it, as the members of etcd do; "": none.

    :raises InvalidRequest: as ``requested_key``.
    """
    public, signer = requested_key(csr), _read_key(root.key)
    authority = x509.load_pem_x509_certificate(root.certificate.encode())
    unit = f"swarm-{role}"
    names = [unit, node_id, *([ROOT_NAME] if role == "manager" else [])]
    reached = [x509.IPAddress(ip_address(address))] if address else []
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
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names), *reached]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    # Nodes renew at different moments between 50 and 80 % of the lifetime.
    renewed = now + lifetime * (0.5 + 0.3 * secrets.randbelow(1000) / 1000)
    return Signed(_pem(certificate), int(renewed.timestamp() * 1e9), int((now + lifetime).timestamp() * 1e9))


def issuer(root_certificate: str) -> tuple[str, str]:
    """Its subject and its public key, DER in base64."""
    certificate = x509.load_pem_x509_certificate(root_certificate.encode())
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(certificate.subject.public_bytes()).decode(), base64.b64encode(public).decode()


def join_token(root_certificate: str) -> str:
    """A new token: nodes that join find by it whether they speak to the right swarm, and prove that they may."""
    digest = int(_digest(root_certificate), 16)
    return f"SWMTKN-1-{base36(digest, _DIGEST_LENGTH)}-{base36(secrets.randbits(128), LENGTH)}"


def check_fingerprint(token: str, root_certificate: str) -> None:
    """Checks that a root certificate that came over an unverified connection is that of the token's swarm.

    :raises InvalidToken: :raises InvalidRoot: it is another one.
    """
    expected = fingerprint(token)
    if _digest(root_certificate) != expected:
        raise InvalidRoot(f"remote CA does not match fingerprint. Expected: {expected}")


def fingerprint(token: str) -> str:
    """The SHA-256 of the root certificate that a join token names.

    :raises InvalidToken:
    """
    found = _TOKEN.fullmatch(token)
    digest = int(found[1], 36) if found is not None else 1 << 256
    if digest >> 256:
        raise InvalidToken
    return f"{digest:064x}"


def _digest(root_certificate: str) -> str:
    return hashlib.sha256(root_certificate.encode()).hexdigest()


def issued_by(certificate: str | bytes, root_certificate: str) -> bool:
    """Whether the root signed a certificate: the first one of a PEM text, or bytes in DER."""
    if isinstance(certificate, str):
        first = x509.load_pem_x509_certificate(certificate.encode())
    else:
        first = x509.load_der_x509_certificate(certificate)
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
