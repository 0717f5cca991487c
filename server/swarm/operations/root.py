"""The root certificate that a spec asks for. Sentences are SwarmKit's (manager/controlapi/ca_rotation.go).

``server.swarm.certificates`` is imported where a certificate is made or read: it needs 5 MiB.
"""

from typing import TYPE_CHECKING

from api_models.swarm.cluster import CAConfig
from api_models.swarm.common import TLSInfo
from server.swarm.operations.rpc import malformed

if TYPE_CHECKING:
    from server.swarm.certificates import Root


def chosen(config: CAConfig) -> "Root | None":
    """The root that the client brings; None: it brings none.

    :raises WharfError: INVALID_ARGUMENT.
    """
    check(config)
    if not _has_block(config.signing_ca_cert):
        return None
    from server.swarm import certificates

    try:
        return certificates.read_root(config.signing_ca_cert, config.signing_ca_key)
    except certificates.InvalidRoot as error:
        raise malformed(str(error)) from None


def check(config: CAConfig) -> None:
    """:raises WharfError: INVALID_ARGUMENT: a certificate without its key, or the reverse."""
    certificate = _has_block(config.signing_ca_cert)
    if config.signing_ca_key and not certificate:
        raise malformed("if a signing CA key is provided, the signing CA cert must also be provided")
    if certificate and not config.signing_ca_key:
        # The key would be that of an external authority.
        raise malformed(
            "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
        )


def requested(config: CAConfig) -> tuple[str, str]:
    """The certificate and the key that the client brings for a new swarm, unread; "": none.

    :raises WharfError: INVALID_ARGUMENT: one without the other.
    """
    check(config)
    return (config.signing_ca_cert, config.signing_ca_key) if _has_block(config.signing_ca_cert) else ("", "")


def _has_block(text: str) -> bool:
    """A text without a PEM block counts as none, as in SwarmKit."""
    return "-----BEGIN " in text


def rotated(current: str, was: CAConfig, config: CAConfig) -> "Root | None":
    """The root that replaces the current certificate; None: it stays. ``was``: the stored config, ``config``: the
    client's.

    :raises WharfError: INVALID_ARGUMENT.
    """
    root = chosen(config)
    if root is not None:
        return None if root.certificate == current else root
    return make() if config.force_rotate != was.force_rotate else None


def make() -> "Root":
    from server.swarm import certificates

    return certificates.make_root()


def cross(certificate: str, key: str, successor: "Root") -> str:
    """The successor's key, signed by the key of the present root."""
    from server.swarm import certificates

    return certificates.cross_sign(certificates.Root(certificate, key), successor)


def issuer(certificate: str) -> TLSInfo:
    from server.swarm import certificates

    return tls_info(certificate, *certificates.issuer(certificate))


def tls_info(certificate: str, subject: str, public_key: str) -> TLSInfo:
    """``subject`` and ``public_key``: as in ``certificates.issuer``."""
    return TLSInfo(trust_root=certificate, cert_issuer_subject=subject, cert_issuer_public_key=public_key)


def token(certificate: str) -> str:
    """A new join token."""
    from server.swarm import certificates

    return certificates.join_token(certificate)
