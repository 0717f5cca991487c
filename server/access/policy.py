"""``policy.toml``: who may use the engine, with which rights and limits.

    published_images = ["docker.io/library/*"]  # the administrators' images that every user may use

    default_role = "member"                # for users that no other table names; "" refuses them

    [administrators]                       # root (uid 0) is always one
    groups = ["docker-admins"]
    certificates = ["CN of a client certificate"]

    [ids]
    pool = "1000000-9999999"               # subordinate ids for users without a range in /etc/subuid and /etc/subgid

    [users]                                # user → role
    alice = "researcher"

    [groups]                               # group → role; the first that a user is a member of counts
    students = "member"

    [roles.member]                         # rights and limits: the fields of Role
    containers = 20
    memory = "32g"

    [audit]                                # who did what, when and with which result: JSON lines
    file = "/var/log/wharf/audit.log"

    [accounting]
    keep = "90d"                           # for how long it is known what containers have used

    [scopes.proxy]                         # of a socket, -H unix:///path?scope=proxy: the fields of ScopeTable
    labels = ["traefik.enable=true"]

Names of users are those of the host (``getpwuid``), or the common names of verified client certificates.
"""

import grp
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from server.access.scope import Scope, spelled_endpoint
from server.config.hosts import parse_host
from server.config.model import Config
from server.config.types import ConfigError
from server.units import parse_duration, parse_size

#: What may be the owner of objects: the name is part of paths and of engine-wide names.
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}\$?\Z")


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _range(value: object) -> object:
    if not isinstance(value, str):
        return value
    first, dash, last = value.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise ValueError("not a range such as 20000-29999")
    return int(first), int(last or first)


_Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
_Seconds = Annotated[int, BeforeValidator(_duration), Field(gt=0)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_PortRange = Annotated[tuple[_Port, _Port], BeforeValidator(_range)]
# 0 is root, the last id is invalid.
_Id = Annotated[int, Field(ge=1, le=(1 << 32) - 2)]
_IdRange = Annotated[tuple[_Id, _Id], BeforeValidator(_range)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Role(_Table):
    """The rights and limits of users. A right is refused unless it is given; a limit that is absent does not exist.

    Sizes are bytes ("32g" in the file), durations are seconds ("12h" in the file).
    """

    # rights
    #: ``--privileged`` of containers and execs, and everything that the other rights allow.
    privileged: bool = False
    #: Host namespaces: ``--network host``, ``--pid host``, ``--ipc host``, ``--uts host``, ``--userns host``,
    #: ``--cgroupns host``. Containers in the host's network or pid namespace, or with ``--userns host``, have the
    #: host's ids: their root is the host's root.
    host_namespaces: bool = False
    #: ``--device`` and device cgroup rules, except devices of GPUs, which the allocator gives.
    devices: bool = False
    #: ``--cgroup-parent``.
    cgroup_parent: bool = False
    #: ``--security-opt`` that loosens the defaults: unconfined profiles, own seccomp profiles, systempaths.
    security_options: bool = False
    #: Capabilities beyond Docker's default set, without ``CAP_``.
    capabilities: tuple[str, ...] = ()
    #: Host directories and files as binds, which the user itself must be able to reach.
    binds: bool = True
    #: Volume, network, IPAM and log drivers of plugins.
    plugins: bool = False
    #: Every process of the user's containers has the user's own uid, gid and supplementary groups (``--user`` is
    #: ignored if equal, refused if another).
    force_user: bool = False
    #: The label ``wharf.keep`` exempts a container from ``max_run_time`` and ``idle_limit``.
    keep: bool = False

    # shares of the machine: one cgroup for each user, above its containers and build steps. What the host's cgroups
    # lack is logged by name. A container's own limits apply below.
    #: CPUs, such as 1.5; also the most that --cpus of one container may be.
    cpus: Annotated[float, Field(gt=0)] | None = None
    #: The weight beside other users (100 without one), as ``cpu.weight`` of cgroup v2.
    cpu_weight: Annotated[int, Field(ge=1, le=10000)] | None = None
    #: Memory, and as much swap.
    memory: _Bytes | None = None
    #: Processes and threads.
    pids: Annotated[int, Field(gt=0)] | None = None
    io_weight: Annotated[int, Field(ge=1, le=10000)] | None = None

    # counts
    #: Existing containers, running or not.
    containers: Annotated[int, Field(ge=0)] | None = None
    #: Bytes of writable layers with logs, local volumes and own images. Measured in the background: what runs can
    #: exceed it, and nothing new is made then.
    disk: _Bytes | None = None
    #: Host ports that may be published; those of ``-P`` and of ``-p`` without a host port are of this range, too.
    #: None: any above 1023.
    ports: _PortRange | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    #: Names of CDI devices that several containers may have at a time.
    shared_gpus: tuple[str, ...] = ()

    # the API
    #: Open connections to the engine's sockets, also those of the user's containers; a connection has one request or
    #: stream at a time. Further ones are answered with 429. Without a number: ``limits.USER_CONNECTIONS``.
    connections: Annotated[int, Field(gt=0)] | None = None

    # time, of one run of a container; see ``server/shares/times.py``
    max_run_time: _Seconds | None = None
    #: Without use of the CPU and of GPUs, without an attached client, and without an exec.
    idle_limit: _Seconds | None = None
    #: Where the use of a container's GPUs can't be measured (``server/gpus/use``), ``idle_limit`` applies by the other
    #: signs alone. Otherwise such a container is never idle: what computes is not stopped for lack of knowledge.
    ignore_unmeasured_gpus: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Role":
        if self.ports is not None and self.ports[0] > self.ports[1]:
            raise ValueError("ports: the first port is greater than the last")
        return self


class ScopeTable(_Table):
    """A scope of sockets. The scope ``read`` exists without a table."""

    #: Such as "POST /containers/{id}/restart", in the spelling of Docker's reference; without any: all that only read.
    endpoints: tuple[str, ...] | None = None
    #: Users; "" stands for the administrators' objects.
    owners: tuple[str, ...] | None = None
    #: "name" or "name=value".
    labels: tuple[str, ...] = ()
    mask_environment: bool = False

    def scope(self, name: str) -> Scope:
        pairs = (text.partition("=") for text in self.labels)
        return Scope(
            name,
            endpoints=None if self.endpoints is None else frozenset(map(spelled_endpoint, self.endpoints)),
            owners=None if self.owners is None else frozenset(self.owners),
            labels=tuple((key, value if separator else None) for key, separator, value in pairs),
            mask_environment=self.mask_environment,
        )


class Audit(_Table):
    """``[audit]``: where and how much is logged of who did what (``server/access/audit.py``)."""

    file: str
    #: Bytes at which the file is replaced ("10m" in the file), and how many files are kept.
    size: _Bytes = 10 << 20
    files: Annotated[int, Field(ge=2)] = 5
    #: Also requests that change nothing.
    reads: bool = False


class Accounting(_Table):
    """``[accounting]``: what containers have used by day (``server/shares/accounting.py``)."""

    #: Seconds ("90d" in the file) for which the sums of a day are kept.
    keep: _Seconds = 90 * 86400


class Ids(_Table):
    """``[ids]``: the subordinate ids of users without a range in ``/etc/subuid`` and ``/etc/subgid``."""

    #: The first and the last id ("1000000-9999999" in the file). Each user gets 65536 of them. The default is a range
    #: that systemd's list of ids on Linux calls unused.
    pool: _IdRange = (1879048192, 2147352575)


class Administrators(_Table):
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()


class _File(_Table):
    default_role: str = ""
    administrators: Administrators = Administrators()
    accounting: Accounting = Accounting()
    users: dict[str, str] = {}
    groups: dict[str, str] = {}
    roles: dict[str, Role] = {}
    scopes: dict[str, ScopeTable] = {}
    audit: Audit | None = None
    ids: Ids = Ids()
    #: Patterns of the administrators' image names that every user may use, such as ``docker.io/library/*``.
    published_images: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "_File":
        uses = [(f"users.{user}", role) for user, role in self.users.items()]
        uses += [(f"groups.{group}", role) for group, role in self.groups.items()]
        uses += [("default_role", self.default_role)] if self.default_role else []
        missing = [f"there is no role {role} ({place})" for place, role in uses if role not in self.roles]
        if missing:
            raise ValueError(", ".join(missing))
        return self


class Policy:
    """A valid policy. Groups are looked up once: a new group needs a reload."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """:raises ValidationError: the document is no policy."""
        file = _File.model_validate(_tuples(document))
        self.administrators = file.administrators
        self.accounting = file.accounting
        self.roles: Mapping[str, Role] = file.roles
        self.published_images = file.published_images
        self.audit = file.audit
        self.ids = file.ids
        self.scopes: Mapping[str, Scope] = {name: table.scope(name) for name, table in file.scopes.items()}
        self._users = file.users
        self._default = file.roles.get(file.default_role)
        #: Names of groups that this host lacks: whoever reads the file logs them.
        self.missing_groups: list[str] = []
        self._admin_gids = frozenset(gid for name in file.administrators.groups if (gid := self._gid(name)) >= 0)
        self._groups = [(gid, file.roles[role]) for name, role in file.groups.items() if (gid := self._gid(name)) >= 0]

    def _gid(self, name: str) -> int:
        if name.isdecimal():
            return int(name)
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            self.missing_groups.append(name)
            return -1

    @property
    def named_users(self) -> Iterable[str]:
        """The users to whom the policy gives a role by name."""
        return self._users.keys()

    def name_of(self, role: Role | None) -> str:
        """The name of a role of this policy; "" for any other."""
        return next((name for name, each in self.roles.items() if each is role), "")

    def publishes(self, image: str) -> bool:
        """Whether all users may use an image of the administrators. ``image``: its canonical name, with the tag."""
        return any(fnmatchcase(image, pattern) for pattern in self.published_images)

    def administers(self, user: str, uid: int, gids: Sequence[int]) -> bool:
        """Whether a process with these credentials is an administrator's."""
        return uid == 0 or user in self.administrators.users or not self._admin_gids.isdisjoint(gids)

    def role_of(self, user: str, gids: Sequence[int]) -> Role | None:
        """The role of a user; None: the user may not use the engine."""
        named = self._users.get(user)
        if named is not None:
            return self.roles[named]
        return next((role for gid, role in self._groups if gid in gids), self._default)


def check_listeners(config: Config) -> None:
    """Refuses sockets whose clients have no identity.

    :raises ConfigError: a tcp socket without verified client certificates.
    """
    for text in config.hosts:
        if parse_host(text, tls=config.tls).scheme == "tcp" and not config.tlsverify:
            raise ConfigError(f"{text}: with a policy, a tcp socket needs --tlsverify: its clients have no identity")


def valid_owner(user: str) -> bool:
    """Whether a user's name can be an owner."""
    return _OWNER.match(user) is not None


class PolicyError(ConfigError):
    """An invalid policy. ``problems``: each mistake that was found."""

    def __init__(self, path: Path, *problems: str) -> None:
        super().__init__(f"policy file {path}: {'; '.join(problems)}")
        self.problems = problems


def read_policy(path: Path) -> Policy:
    """Reads the policy.

    :raises PolicyError: it can't be read, or a value in it is invalid; the message names each.
    """
    try:
        return Policy(tomllib.loads(path.read_text()))
    except OSError as error:
        raise PolicyError(path, (error.strerror or str(error)).lower()) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(path, str(error)) from None
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc'])) or 'policy'}: {each['msg']}" for each in error.errors())
        raise PolicyError(path, *problems) from None


def _tuples(value: Any) -> Any:
    """TOML's lists as tuples: strict models accept no other sequence."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
