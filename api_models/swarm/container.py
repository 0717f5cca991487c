"""The container of a task."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Int64
from api_models.container import HealthConfig
from api_models.mount import Mount
from api_models.record import Record, StringMap, Strings
from api_models.resources import Ulimit
from api_models.swarm.common import Duration
from api_models.swarm.secret import ConfigReference, SecretReference
from api_models.versions import Since


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSConfig(Record):
    go_name: ClassVar[str] = "swarm.DNSConfig"

    nameservers: Annotated[Strings | None, OMIT] = None
    search: Annotated[Strings | None, OMIT] = None
    options: Annotated[Strings | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSpec(Record):
    """For Windows containers."""

    go_name: ClassVar[str] = "swarm.CredentialSpec"

    config: str = ""
    file: str = ""
    registry: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SELinuxContext(Record):
    go_name: ClassVar[str] = "swarm.SELinuxContext"

    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompOpts(Record):
    """``mode``: "default", "unconfined" or "custom"; ``profile``: base64."""

    go_name: ClassVar[str] = "swarm.SeccompOpts"

    mode: Annotated[str, Go("swarm.SeccompMode"), OMIT] = ""
    profile: Annotated[str, Go("[]uint8"), OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppArmorOpts(Record):
    """``mode``: "default" or "disabled"."""

    go_name: ClassVar[str] = "swarm.AppArmorOpts"

    mode: Annotated[str, Go("swarm.AppArmorMode"), OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges(Record):
    go_name: ClassVar[str] = "swarm.Privileges"

    credential_spec: CredentialSpec | None = None
    selinux_context: Annotated[SELinuxContext | None, Field(alias="SELinuxContext")] = None
    seccomp: Annotated[SeccompOpts | None, OMIT, Since((1, 44))] = None
    app_armor: Annotated[AppArmorOpts | None, OMIT, Since((1, 44))] = None
    no_new_privileges: Annotated[bool, Since((1, 44))] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec(Record):
    """``hosts``: lines of ``/etc/hosts``, address first."""

    go_name: ClassVar[str] = "swarm.ContainerSpec"

    image: Annotated[str, OMIT] = ""
    labels: Annotated[StringMap | None, OMIT] = None
    command: Annotated[Strings | None, OMIT] = None
    args: Annotated[Strings | None, OMIT] = None
    hostname: Annotated[str, OMIT] = ""
    env: Annotated[Strings | None, OMIT] = None
    dir: Annotated[str, OMIT] = ""
    user: Annotated[str, OMIT] = ""
    groups: Annotated[Strings | None, OMIT] = None
    privileges: Annotated[Privileges | None, OMIT] = None
    init: Annotated[bool | None, OMIT, Since((1, 37))] = None
    stop_signal: Annotated[str, OMIT] = ""
    tty: Annotated[bool, Field(alias="TTY"), OMIT] = False
    open_stdin: Annotated[bool, OMIT] = False
    read_only: Annotated[bool, OMIT] = False
    mounts: Annotated[tuple[Mount, ...] | None, OMIT] = None
    stop_grace_period: Annotated[Duration | None, OMIT] = None
    healthcheck: Annotated[HealthConfig | None, OMIT] = None
    hosts: Annotated[Strings | None, OMIT] = None
    dns_config: Annotated[DNSConfig | None, Field(alias="DNSConfig"), OMIT] = None
    secrets: Annotated[tuple[SecretReference, ...] | None, OMIT] = None
    configs: Annotated[tuple[ConfigReference, ...] | None, OMIT] = None
    isolation: Annotated[str, Go("container.Isolation"), OMIT] = ""
    sysctls: Annotated[StringMap | None, OMIT, Since((1, 40))] = None
    capability_add: Annotated[Strings | None, OMIT, Since((1, 41))] = None
    capability_drop: Annotated[Strings | None, OMIT, Since((1, 41))] = None
    ulimits: Annotated[tuple[Ulimit, ...] | None, OMIT, Since((1, 41))] = None
    oom_score_adj: Annotated[Int64, OMIT, Since((1, 46))] = 0
