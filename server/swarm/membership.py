"""What this node knows of its membership in a swarm: the file ``node.json``. It is written last when a node becomes
part of a swarm, so a directory without it is the rest of an attempt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from api_models.record import Record
from server.swarm.files import read_record, write_record
from server.swarm.remote.records import ManagerAddress

FILE = "node.json"


#: ``Membership.store`` beside the address of a site's etcd.
SQLITE, ETCD = "sqlite", "etcd"
#: The option ``--swarm-store``: in SQLite until another node joins.
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Record):
    """``listen_addr``, ``advertise_addr``: with port. ``local_addr``: an address of this machine. ``data_path_addr``:
    for the traffic of networks; "": as ``advertise_addr``.

    ``role``: "manager" or "worker". ``store``: where a manager finds the state: ``SQLITE``, ``ETCD`` (the swarm's own),
    or the addresses of a site's etcd. ``etcd_cluster``: what a member of the swarm's own etcd begins with, as in
    ``--initial-cluster``. ``managers``: as this node knew them last; a worker, or a manager that was demoted, begins
    with them.
    """

    node_id: Annotated[str, Field(alias="NodeID")] = ""
    cluster_id: Annotated[str, Field(alias="ClusterID")] = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    local_addr: str = ""
    data_path_addr: str = ""
    role: str = "manager"
    store: str = SQLITE
    etcd_cluster: str = ""
    managers: tuple[ManagerAddress, ...] = ()

    @property
    def host(self) -> str:
        """The advertised address without its port."""
        return self.advertise_addr.rpartition(":")[0].strip("[]")

    def save(self, directory: Path) -> None:
        write_record(directory / FILE, self)


def load(directory: Path) -> Membership | None:
    """None: this node is not part of a swarm.

    :raises ValueError: the file is damaged.
    """
    try:
        return read_record(directory / FILE, Membership)
    except FileNotFoundError:
        return None
