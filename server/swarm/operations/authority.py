"""Issues certificates of nodes with the swarm's root key."""

from api_models.swarm.cluster import SwarmSpec
from server.swarm.model.objects import Cluster
from server.swarm.model.sealer import Opener
from server.swarm.operations.clusterspec import DEFAULT_EXPIRY_NS
from server.swarm.remote.identity import Certificate


def trusted(cluster: Cluster) -> tuple[str, ...]:
    """The root certificates that nodes trust."""
    return tuple(filter(None, (cluster.root_certificate, cluster.rotated_from)))


def sign(cluster: Cluster, keys: Opener, csr: str, *, node_id: str, role: str, address: str) -> Certificate:
    """A certificate for the key of a request; without the private key. That of a manager has its IP address, which the
    members of etcd check. Call it in a thread.

    :raises certificates.InvalidRequest:
    """
    from server.swarm import certificates  # here: cryptography needs 5 MiB

    signed = certificates.sign(
        certificates.Root(cluster.root_certificate, keys.open(cluster.sealed_root_key).decode()),
        csr,
        swarm_id=cluster.id,
        node_id=node_id,
        role=role,
        lifetime_ns=lifetime(cluster.spec),
        address=address if role == "manager" else "",
    )
    address = address if role == "manager" else ""
    return signed_by(cluster, signed.certificate, signed.renew_ns, signed.expires_ns, address)


def lifetime(spec: SwarmSpec) -> int:
    """That of the nodes' certificates, ns."""
    return spec.ca_config.node_cert_expiry or DEFAULT_EXPIRY_NS


def signed_by(cluster: Cluster, certificate: str, renew_ns: int, expires_ns: int, address: str) -> Certificate:
    """What a node keeps of a new certificate of the present root, without the private key."""
    return Certificate(
        certificate=certificate + cluster.cross_certificates,
        root=cluster.root_certificate,
        roots=trusted(cluster),
        renew_ns=renew_ns,
        expires_ns=expires_ns,
        lifetime_ns=cluster.spec.ca_config.node_cert_expiry,
        address=address,
    )
