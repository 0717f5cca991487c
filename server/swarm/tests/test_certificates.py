"""The certificate authority of a swarm, and its join tokens."""

import hashlib
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from server.swarm import certificates
from server.swarm.certificates import InvalidRoot, Root

HOUR_NS = 3600 * 1_000_000_000


def test_a_root_certificate() -> None:
    root = certificates.make_root()
    certificate = x509.load_pem_x509_certificate(root.certificate.encode())
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=swarm-ca"
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=19 * 365)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificates.read_root(root.certificate, root.key).certificate == root.certificate


def test_a_certificate_of_a_node() -> None:
    root = certificates.make_root()
    issued = certificates.issue(root, swarm_id="swarm", node_id="node", role="manager", lifetime_ns=24 * HOUR_NS)
    assert certificates.issued_by(issued.certificate, root.certificate)
    assert not certificates.issued_by(issued.certificate, certificates.make_root().certificate)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=node,OU=swarm-manager,O=swarm"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["swarm-manager", "node", "swarm-ca"]
    ends = certificate.not_valid_after_utc.timestamp() * 1e9
    assert ends == pytest.approx(time.time_ns() + 24 * HOUR_NS, abs=HOUR_NS)
    begin = time.time_ns() + 12 * HOUR_NS
    assert begin - HOUR_NS < issued.renew_ns < begin + 8 * HOUR_NS


def test_the_issuer_is_der() -> None:
    subject, public_key = certificates.issuer(certificates.make_root().certificate)
    assert subject
    assert public_key.startswith("MFkwEwYHKoZIzj0CAQ")  # an elliptic curve's key


def test_join_tokens_identify_the_root() -> None:
    root = certificates.make_root().certificate
    tokens = {certificates.join_token(root) for _ in range(3)}
    assert len(tokens) == 3
    found = [re.fullmatch(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})", token) for token in tokens]
    digest = int(hashlib.sha256(root.encode()).hexdigest(), 16)
    assert {int(match[1], 36) for match in found if match is not None} == {digest}


def _short_lived() -> Root:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "short")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Root(certificates._pem(certificate), certificates._private(key))


def test_roots_of_clients_that_are_refused() -> None:
    one, other = certificates.make_root(), certificates.make_root()
    short = _short_lived()
    node = certificates.issue(one, swarm_id="s", node_id="n", role="worker", lifetime_ns=9999 * HOUR_NS)
    for certificate, key, sentence in (
        ("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", one.key, "could not parse the desired CA"),
        (one.certificate + other.certificate, one.key, "cannot contain multiple certificates"),
        (one.certificate, other.key, "private key does not match public key"),
        (one.certificate, "x", "failed to parse private key"),
        (node.certificate, node.key, "certificate not a CA"),
        (short.certificate, short.key, "CA certificate expires too soon"),
    ):
        with pytest.raises(InvalidRoot, match=sentence):
            certificates.read_root(certificate, key)


def test_a_certificate_is_for_the_key_of_the_request_only() -> None:
    root, request = certificates.make_root(), certificates.make_request()
    signed = certificates.sign(
        root, request.csr, swarm_id="s", node_id="n", role="worker", lifetime_ns=24 * HOUR_NS
    ).certificate
    certificate = x509.load_pem_x509_certificate(signed.encode())
    assert certificate.subject.rfc4514_string() == "CN=n,OU=swarm-worker,O=s"
    assert certificate.public_key() == certificates._read_key(request.key).public_key()
    assert certificates.issued_by(certificate.public_bytes(serialization.Encoding.DER), root.certificate)
    first, second = certificates.key_id(request.csr), certificates.key_id(certificates.make_request().csr)
    assert re.fullmatch(r"[0-9a-z]{25}", first)
    assert first == certificates.key_id(request.csr) != second


def test_requests_that_are_refused() -> None:
    def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        return csr.public_bytes(serialization.Encoding.PEM).decode()

    good = request(ec.generate_private_key(ec.SECP384R1()))
    certificates.requested_key(good)
    der = bytearray(x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    for csr, sentence in (
        ("x", "can't be read"),
        ("x" * 20000, "too long"),
        (request(ec.generate_private_key(ec.SECP224R1())), "ECDSA P-256"),
        (request(rsa.generate_private_key(65537, 2048)), "ECDSA P-256"),
        (forged, "signature"),
    ):
        with pytest.raises(certificates.InvalidRequest, match=sentence):
            certificates.requested_key(csr)


def test_a_token_names_its_root() -> None:
    root, other = certificates.make_root().certificate, certificates.make_root().certificate
    token = certificates.join_token(root)
    certificates.check_fingerprint(token, root)
    digest = hashlib.sha256(root.encode()).hexdigest()
    with pytest.raises(InvalidRoot, match=f"^remote CA does not match fingerprint. Expected: {digest}$"):
        certificates.check_fingerprint(token, other)
    for wrong in ("", "x", token[:-1], token.upper(), "SWMTKN-2" + token[8:], f"SWMTKN-1-{'z' * 50}-{'1' * 25}"):
        with pytest.raises(certificates.InvalidToken, match=r"^invalid join token$"):
            certificates.fingerprint(wrong)
