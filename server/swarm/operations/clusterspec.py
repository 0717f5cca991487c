"""The spec of the swarm: defaults, checks, and the form in which it is stored."""

from dataclasses import replace

from api_models.swarm.cluster import (
    CAConfig,
    DispatcherConfig,
    EncryptionConfig,
    OrchestrationConfig,
    RaftConfig,
    SwarmSpec,
)
from engine.common.errors import invalid
from server.swarm.operations.rpc import malformed, unsupported

NAME = "default"
_SECOND = 1_000_000_000
#: The least lifetime of a node's certificate, and the default, ns.
_MIN_EXPIRY_NS = 3600 * _SECOND
DEFAULT_EXPIRY_NS = 2160 * 3600 * _SECOND

#: SwarmKit's (manager.go, raft.DefaultRaftConfig, ca.DefaultNodeCertExpiration).
DEFAULTS = SwarmSpec(
    name=NAME,
    orchestration=OrchestrationConfig(task_history_retention_limit=5),
    raft=RaftConfig(
        snapshot_interval=10000,
        keep_old_snapshots=0,
        log_entries_for_slow_followers=500,
        election_tick=10,
        heartbeat_tick=1,
    ),
    dispatcher=DispatcherConfig(heartbeat_period=5 * _SECOND),
    ca_config=CAConfig(node_cert_expiry=DEFAULT_EXPIRY_NS),
)
#: What an update sets where the client sends nothing.
EMPTY = SwarmSpec(
    orchestration=OrchestrationConfig(task_history_retention_limit=0), raft=RaftConfig(keep_old_snapshots=0)
)


def check_name(spec: SwarmSpec) -> None:
    """:raises WharfError: INVALID_ARGUMENT: a swarm has no other name than "default"."""
    if spec.name not in ("", NAME):
        raise invalid('swarm spec must be named "default"')


def merged(spec: SwarmSpec, base: SwarmSpec) -> SwarmSpec:
    """The spec with the values of ``base`` where it has none. The signing certificate and key are left out: they are
    no part of the stored spec.

    :raises WharfError: INVALID_ARGUMENT; NOT_IMPLEMENTED: external certificate authorities.
    """
    for external in spec.ca_config.external_cas or ():
        if external.protocol.lower() != "cfssl":
            raise invalid(f'invalid protocol: "{external.protocol}"')
        raise unsupported("external certificate authorities are not part of this engine")
    raft, ca = spec.raft, spec.ca_config
    limit = spec.orchestration.task_history_retention_limit
    result = SwarmSpec(
        name=NAME,
        labels=spec.labels or base.labels,
        orchestration=base.orchestration if limit is None else spec.orchestration,
        raft=RaftConfig(
            snapshot_interval=raft.snapshot_interval or base.raft.snapshot_interval,
            keep_old_snapshots=(
                base.raft.keep_old_snapshots if raft.keep_old_snapshots is None else raft.keep_old_snapshots
            ),
            log_entries_for_slow_followers=(
                raft.log_entries_for_slow_followers or base.raft.log_entries_for_slow_followers
            ),
            election_tick=raft.election_tick or base.raft.election_tick,
            heartbeat_tick=raft.heartbeat_tick or base.raft.heartbeat_tick,
        ),
        dispatcher=spec.dispatcher if spec.dispatcher.heartbeat_period else base.dispatcher,
        ca_config=replace(
            CAConfig(),
            node_cert_expiry=ca.node_cert_expiry or base.ca_config.node_cert_expiry,
            force_rotate=ca.force_rotate,
        ),
        task_defaults=spec.task_defaults,
        encryption_config=EncryptionConfig(auto_lock_managers=spec.encryption_config.auto_lock_managers),
    )
    _check(result)
    return result


def _check(spec: SwarmSpec) -> None:
    expiry = spec.ca_config.node_cert_expiry
    if expiry and expiry < _MIN_EXPIRY_NS:
        raise malformed("minimum certificate expiry time is: 1h0m0s")
    if spec.dispatcher.heartbeat_period < 0:
        raise malformed("heartbeat time period cannot be a negative duration")
