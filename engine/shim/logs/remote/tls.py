"""TLS to a log server."""

import ssl

from engine.shim.logs.remote.encoder import Settings


def context(settings: Settings) -> ssl.SSLContext:
    """``ca`` (default: the host's), client ``cert`` and ``key``, ``skip-verify``.

    :raises ValueError: a file can't be read or parsed.
    """
    ca, cert, key = settings.text("ca"), settings.text("cert"), settings.text("key")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.hostname_checks_common_name = False  # as in Go
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca:
            made.load_verify_locations(ca)
        else:
            made.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror.lower() if error.strerror else str(error)
        raise ValueError(f'could not read CA certificate "{ca}": open {ca}: {reason}') from None
    try:
        if cert or key:
            made.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"could not load X509 key pair: {error}") from None
    if settings.options.get("skip-verify"):
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
