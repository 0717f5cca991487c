"""What an option is: a setting with a flag and a key in ``daemon.json``."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How the text of a flag and the JSON of a key are read. The values are the words in ``--help``."""

    TEXT = "string"
    BOOL = "bool"
    INT = "int"
    BYTES = "bytes"
    LIST = "list"
    MAP = "map"
    ULIMITS = "ulimit"
    POOLS = "pool-options"
    RUNTIMES = "runtime"
    NETWORK_OPTS = "mapmap"
    SWITCHES = "name[=bool]"
    BUILDER = "builder"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. As the mark of a field of ``Config`` it names neither key nor kind, which are the field's, and the
    flag only if it differs from the key."""

    help: str = ""
    flag: str = ""
    # The key in daemon.json, if it differs from the flag.
    key: str = ""
    kind: Kind = Kind.TEXT
    short: str = ""
    # Why it can't be set to any other value than ``allowed``: the daemon refuses to start with it and names it, instead
    # of ignoring it.
    refused: str = ""
    allowed: object = None
    # SIGHUP applies a change.
    reloads: bool = False
    # It exists only as a flag / only in the file.
    only_flag: bool = False
    only_file: bool = False

    @property
    def name(self) -> str:
        """The key in ``daemon.json``."""
        return self.key or self.flag

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")
