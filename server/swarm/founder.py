"""The child process of ``founding``: reads an order from its standard input, and writes what it has made."""

import json
import sys
from dataclasses import asdict

from server.swarm import certificates
from server.swarm.founded import Founding, Order


def make(order: Order) -> Founding:
    try:
        given = certificates.read_root(order.root_certificate, order.root_key) if order.root_certificate else None
    except certificates.InvalidRoot as error:
        return Founding(refusal=str(error))
    root = given or certificates.make_root()
    request = certificates.make_request()
    signed = certificates.sign(
        root,
        request.csr,
        swarm_id=order.swarm_id,
        node_id=order.node_id,
        role="manager",
        lifetime_ns=order.lifetime_ns,
        address=order.address,
    )
    subject, public_key = certificates.issuer(root.certificate)
    return Founding(
        root_certificate=root.certificate,
        root_key=root.key,
        subject=subject,
        public_key=public_key,
        worker_token=certificates.join_token(root.certificate),
        manager_token=certificates.join_token(root.certificate),
        certificate=signed.certificate,
        key=request.key,
        renew_ns=signed.renew_ns,
        expires_ns=signed.expires_ns,
    )


def main() -> None:
    json.dump(asdict(make(Order(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()
