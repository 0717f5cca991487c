"""The swarm itself: its spec and the requests that make, join and unlock it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Int, Int64, Text, Uint32, Uint64
from api_models.record import Record, Strings
from api_models.swarm.common import Annotations, Driver, Duration
from api_models.versions import Since


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestrationConfig(Record):
    """``task_history_retention_limit``: the number of old tasks kept for each slot or node; negative: all."""

    go_name: ClassVar[str] = "swarm.OrchestrationConfig"

    task_history_retention_limit: Annotated[Int64 | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig(Record):
    go_name: ClassVar[str] = "swarm.RaftConfig"

    snapshot_interval: Annotated[Uint64, OMIT] = 0
    keep_old_snapshots: Annotated[Uint64 | None, OMIT] = None
    log_entries_for_slow_followers: Annotated[Uint64, OMIT] = 0
    election_tick: Int = 0
    heartbeat_tick: Int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherConfig(Record):
    go_name: ClassVar[str] = "swarm.DispatcherConfig"

    heartbeat_period: Annotated[Duration, OMIT] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalCA(Record):
    go_name: ClassVar[str] = "swarm.ExternalCA"

    protocol: Annotated[str, Go("swarm.ExternalCAProtocol")] = ""
    url: Annotated[str, Field(alias="URL")] = ""
    options: Annotated[Mapping[str, Text] | None, OMIT] = None
    ca_cert: Annotated[str, Field(alias="CACert")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CAConfig(Record):
    go_name: ClassVar[str] = "swarm.CAConfig"

    node_cert_expiry: Annotated[Duration, OMIT] = 0
    external_cas: Annotated[tuple[ExternalCA, ...] | None, Field(alias="ExternalCAs"), OMIT] = None
    signing_ca_cert: Annotated[str, Field(alias="SigningCACert"), OMIT] = ""
    signing_ca_key: Annotated[str, Field(alias="SigningCAKey"), OMIT] = ""
    force_rotate: Annotated[Uint64, OMIT] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefaults(Record):
    go_name: ClassVar[str] = "swarm.TaskDefaults"

    log_driver: Annotated[Driver | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionConfig(Record):
    go_name: ClassVar[str] = "swarm.EncryptionConfig"

    auto_lock_managers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmSpec(Annotations):
    """The body of ``POST /swarm/update``."""

    go_name: ClassVar[str] = "swarm.Spec"

    orchestration: OrchestrationConfig = OrchestrationConfig()
    raft: RaftConfig = RaftConfig()
    dispatcher: DispatcherConfig = DispatcherConfig()
    ca_config: Annotated[CAConfig, Field(alias="CAConfig")] = CAConfig()
    task_defaults: TaskDefaults = TaskDefaults()
    encryption_config: EncryptionConfig = EncryptionConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitRequest(Record):
    """The body of ``POST /swarm/init``."""

    go_name: ClassVar[str] = "swarm.InitRequest"

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: Annotated[Uint32, Since((1, 40))] = 0
    force_new_cluster: bool = False
    spec: SwarmSpec = SwarmSpec()
    auto_lock_managers: bool = False
    availability: Annotated[str, Go("swarm.NodeAvailability")] = ""
    default_addr_pool: Annotated[Strings | None, Since((1, 39))] = None
    subnet_size: Annotated[Uint32, Since((1, 39))] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest(Record):
    """The body of ``POST /swarm/join``."""

    go_name: ClassVar[str] = "swarm.JoinRequest"

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: Strings | None = None
    join_token: str = ""
    availability: Annotated[str, Go("swarm.NodeAvailability")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockRequest(Record):
    """The body of ``POST /swarm/unlock``."""

    go_name: ClassVar[str] = "swarm.UnlockRequest"

    unlock_key: str = ""
