"""What a new swarm begins with."""

import asyncio
from dataclasses import replace

import pytest
from cryptography import x509

from engine.common.errors import Kind, WharfError
from server.swarm import certificates, founding
from server.swarm.founded import Order

ORDER = Order(swarm_id="swarm", node_id="node", lifetime_ns=86_400 * 10**9, address="192.0.2.1")


def test_the_child_process_makes_what_a_swarm_needs() -> None:
    made = asyncio.run(founding.found(ORDER))
    assert certificates.issued_by(made.certificate, made.root_certificate)
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=node,OU=swarm-manager,O=swarm"
    assert (made.subject, made.public_key) == certificates.issuer(made.root_certificate)
    assert made.worker_token != made.manager_token
    for token in (made.worker_token, made.manager_token):
        certificates.check_fingerprint(token, made.root_certificate)


def test_the_root_of_a_client_is_used_or_refused() -> None:
    root = certificates.make_root()
    given = replace(ORDER, root_certificate=root.certificate, root_key=root.key)
    assert asyncio.run(founding.found(given)).root_certificate == root.certificate
    refused = asyncio.run(founding.found(replace(given, root_key=certificates.make_root().key)))
    assert refused.refusal
    assert not refused.root_certificate


def test_a_child_process_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(WharfError) as failed:
        asyncio.run(founding.found(ORDER))
    assert failed.value.kind is Kind.INTERNAL
