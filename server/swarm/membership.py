"""What this node knows of its membership in a swarm: the file ``node.json``. It is written last when a node becomes
part of a swarm, so a directory without it is the rest of an attempt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from api_models.record import Record
from server.swarm.files import read_record, write_record

FILE = "node.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Record):
    """``listen_addr``, ``advertise_addr``: with port. ``local_addr``: an address of this machine. ``data_path_addr``:
    for the traffic of networks; "": as ``advertise_addr``."""

    node_id: Annotated[str, Field(alias="NodeID")] = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    local_addr: str = ""
    data_path_addr: str = ""

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
