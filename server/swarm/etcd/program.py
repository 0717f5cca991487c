"""The program etcd: whether it is installed and new enough, and the arguments of a member."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.system import run

#: The first version with learners.
OLDEST = (3, 4)
#: etcd's file of a unix socket has the name of the URL's host and port.
SOCKET = "client.sock:0"

_MISSING = (
    "etcd-server is not installed: a swarm of several nodes keeps its state in etcd. Install it (Debian, Ubuntu:"
    " apt-get install etcd-server)"
)
_VERSION = re.compile(rb"etcd Version: (\d+)\.(\d+)")
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Pems:
    """What the members prove each other who they are by, as PEM: this node's certificate with what is behind it, its
    key, and the roots that certificates of others may have."""

    certificate: str
    key: str
    roots: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOptions:
    """How a member runs.

    ``data``: the directory of its data. ``runtime``: a directory on tmpfs, for its socket and the PEM files. ``name``:
    the node's id. ``listen``, ``advertise``: ``address:port`` for the other members. ``initial_cluster``: the members
    with which it begins if it has no data yet, ``name=URL`` with commas between; "": it is the first one. ``existing``:
    these members have a cluster, to which this one was added.

    ``force_new``: it continues alone from its data, as the only member. ``quota``: the most bytes of its database.
    ``history``: how many revisions stay after each compaction, for watches that begin again.
    """

    data: Path
    runtime: Path
    name: str
    listen: str
    advertise: str
    initial_cluster: str = ""
    existing: bool = False
    force_new: bool = False
    quota: int = 2 * _GIB
    history: int = 10_000

    @property
    def peer_url(self) -> str:
        return f"https://{self.advertise}"

    @property
    def endpoint(self) -> str:
        """Where the member's API is, as an endpoint of ``server.swarm.store.channel``."""
        return f"unix:{self.runtime / SOCKET}"


@dataclass(frozen=True, slots=True)
class Program:
    """An installed etcd."""

    path: str
    version: tuple[int, int]


async def find() -> Program:
    """:raises WharfError: FAILED_PRECONDITION: etcd is not installed, or too old."""
    path = shutil.which("etcd", path=run.DEFAULT_ENV["PATH"])
    if path is None:
        raise WharfError(Kind.FAILED_PRECONDITION, _MISSING)
    done = await run.run([path, "--version"], deadline=timeouts.seconds("program.run"), check=True)
    found = _VERSION.search(done.stdout)
    if found is None:
        raise WharfError(Kind.FAILED_PRECONDITION, f"{path} --version names no version of etcd")
    version = int(found[1]), int(found[2])
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise WharfError(
            Kind.FAILED_PRECONDITION,
            f"etcd {version[0]}.{version[1]} ({path}) is too old: a swarm of several nodes needs {wanted} or later",
        )
    return Program(path, version)


def argv(program: Program, options: MemberOptions, *, force_new: bool = False) -> Sequence[str]:
    """The command of a member. The kernel ends it with SIGTERM when wharfd's main thread, which has started it, ends:
    the data directory must not have a member that no wharfd supervises. ``force_new``: as in ``options``, at the first
    start only."""
    flags = {
        "name": options.name,
        "data-dir": str(options.data),
        # Relative to the working directory, which is the runtime directory.
        "listen-client-urls": f"unix://{SOCKET}",
        "advertise-client-urls": f"unix://{SOCKET}",
        "listen-peer-urls": f"https://{options.listen}",
        "initial-advertise-peer-urls": options.peer_url,
        "initial-cluster": options.initial_cluster or f"{options.name}={options.peer_url}",
        "initial-cluster-state": "existing" if options.existing else "new",
        "peer-cert-file": "peer.pem",
        "peer-key-file": "peer-key.pem",
        "peer-trusted-ca-file": "roots.pem",
        "peer-client-cert-auth": "true",
        # Certificates of managers have this name (``certificates.issue``), those of workers don't.
        "peer-cert-allowed-hostname": "swarm-manager",
        "quota-backend-bytes": str(options.quota),
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": str(options.history),
        "log-level": "warn",
        "log-outputs": "stderr",
    }
    command = [program.path, *(f"--{name}={value}" for name, value in flags.items())]
    if force_new:
        command.append("--force-new-cluster")
    setpriv = shutil.which("setpriv", path=run.DEFAULT_ENV["PATH"])
    return command if setpriv is None else [setpriv, "--pdeathsig", "TERM", "--", *command]


def environment(program: Program) -> Mapping[str, str]:
    """A manager with several addresses may connect from another one than its certificate has: its name is checked, not
    the address. The option's name depends on the version; as a variable, a wrong one ends no member."""
    prefix = "ETCD_EXPERIMENTAL" if program.version < (3, 6) else "ETCD"
    return {**run.DEFAULT_ENV, f"{prefix}_PEER_SKIP_CLIENT_SAN_VERIFICATION": "true"}
