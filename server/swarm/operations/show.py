"""The swarm, nodes, secrets and configs as the API shows them, in the form of the newest version."""

import base64
from dataclasses import replace
from typing import Any

from api_models.swarm.common import TLSInfo
from server.swarm.model.objects import Cluster, Config, Node, Secret
from server.swarm.operations.showservice import meta

#: What SwarmKit uses if the swarm has no pool of its own.
DEFAULT_POOL, DEFAULT_SUBNET_SIZE = "10.0.0.0/8", 24


def show_cluster(cluster: Cluster, issuer: TLSInfo) -> dict[str, Any]:
    """The swarm without its join tokens, as in ``GET /info``."""
    return {
        **meta(cluster),
        "Spec": replace(cluster.spec, labels=cluster.spec.labels or {}).wire(),
        "TLSInfo": issuer.wire(),
        "RootRotationInProgress": bool(cluster.rotated_from),
        "DefaultAddrPool": list(cluster.default_addr_pool) or [DEFAULT_POOL],
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }


def show_node(node: Node) -> dict[str, Any]:
    shown = {
        **meta(node),
        "Spec": replace(node.spec, labels=node.spec.labels or {}).wire(),
        "Description": node.description.wire(),
        "Status": node.status.wire(),
    }
    if node.manager is not None:
        shown["ManagerStatus"] = node.manager.wire()
    return shown


def show_secret(secret: Secret) -> dict[str, Any]:
    return {**meta(secret), "Spec": replace(secret.spec, labels=secret.spec.labels or {}).wire()}


def show_config(config: Config, data: bytes) -> dict[str, Any]:
    spec = replace(config.spec, labels=config.spec.labels or {}, data=base64.b64encode(data).decode())
    return {**meta(config), "Spec": spec.wire()}
