"""The bodies of the requests with which a node joins and stays in a swarm, and of their answers."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from api_models.base import OMIT, Int64
from api_models.record import Record, Strings
from api_models.swarm.node import NodeDescription
from server.swarm.remote.identity import Certificate

_NodeID = Field(alias="NodeID")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest(Record):
    """``csr``: the request for the node's certificate. The same request may come again, if its answer was lost.

    ``advertise_addr``: with port; without an address, or with an unspecified one, the manager takes the address that
    the request comes from. ``data_path_addr``: "": the same address."""

    token: str = ""
    csr: Annotated[str, Field(alias="CSR")] = ""
    availability: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    engine_id: Annotated[str, Field(alias="EngineID")] = ""
    description: NodeDescription = NodeDescription()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerAddress(Record):
    """``addr``: of the managers' port, with port."""

    node_id: Annotated[str, _NodeID] = ""
    addr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted(Record):
    """The answer to a node that joins. ``addr``: its advertised address, with port. ``certificate``: without the
    private key, which only the node has."""

    node_id: Annotated[str, _NodeID] = ""
    cluster_id: Annotated[str, Field(alias="ClusterID")] = ""
    role: str = ""
    addr: str = ""
    data_path_addr: str = ""
    certificate: Certificate = Certificate()
    managers: tuple[ManagerAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(Record):
    """What a node must know of its swarm: its managers, the role that the node shall have, and what its certificate
    must be: ``root`` and ``lifetime_ns`` as in ``Certificate``."""

    managers: tuple[ManagerAddress, ...] = ()
    role: str = ""
    root: str = ""
    roots: Strings = ()
    lifetime_ns: Int64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRequest(Record):
    """A node with a manager's certificate becomes a member of etcd. ``peer_url``: where the other members reach it.
    ``addr``: of its managers' port, with port, as in ``JoinRequest.advertise_addr``."""

    peer_url: Annotated[str, Field(alias="PeerURL")] = ""
    addr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAdded(Record):
    """``data_key``: the swarm's data key, base64. ``unlock_key``: by which the new manager seals it; "": the swarm has
    no autolock. ``members``: peer URLs by name of member, as in etcd's ``--initial-cluster``, with the new one.
    ``name``: that of the new one."""

    data_key: str = ""
    unlock_key: Annotated[str, OMIT] = ""
    name: str = ""
    members: Strings = ()
