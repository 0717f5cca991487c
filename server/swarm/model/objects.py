"""The stored objects."""

from dataclasses import dataclass
from typing import Annotated

from api_models.base import OMIT, Int64
from api_models.network import IPAM, ConfigReference
from api_models.record import Record, StringMap, Strings
from api_models.swarm.cluster import SwarmSpec
from api_models.swarm.network import Endpoint
from api_models.swarm.node import ManagerStatus, NodeDescription, NodeSpec, NodeStatus, PluginDescription
from api_models.swarm.secret import ConfigSpec, SecretSpec
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import ContainerStatus, GenericResource, PortStatus, TaskSpec
from server.networks.model import ENCRYPTED, OVERLAY
from server.swarm.model.taskstate import STATES, TaskState

#: Networks that every node has itself. Services refer to them by name, and a task has no address of the swarm on them.
PREDEFINED = frozenset(("bridge", "host", "none"))
_HEARTBEAT_NS = 5_000_000_000
#: In a node's description: it can have encrypted networks.
ESP = PluginDescription(type="Kernel", name="esp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Object(Record):
    """``version`` 0: the object is not stored yet. It is not part of the stored document."""

    id: str = ""
    version: Int64 = 0
    created_ns: Int64 = 0
    updated_ns: Int64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Object):
    """The swarm. There is one, and its id is the swarm's.

    ``sealed_*``: sealed by the swarm's data key (``server.swarm.keys``), base64. ``sealed_unlock_key``: by which each
    manager seals its copy of the data key; "": the swarm has no autolock. ``rotated_from``: the former root certificate
    while the nodes change theirs; ``cross_certificates``: the present root's key signed by the former one's, so that a
    node that knows only the former root accepts new certificates (several after several rotations). ``spec`` has no
    signing certificate and no signing key.
    """

    spec: SwarmSpec = SwarmSpec()
    root_certificate: str = ""
    sealed_root_key: str = ""
    sealed_worker_token: str = ""
    sealed_manager_token: str = ""
    sealed_unlock_key: Annotated[str, OMIT] = ""
    rotated_from: Annotated[str, OMIT] = ""
    cross_certificates: Annotated[str, OMIT] = ""
    default_addr_pool: Strings = ()
    subnet_size: Int64 = 24
    data_path_port: Int64 = 4789

    @property
    def heartbeat_ns(self) -> int:
        """The time between two heartbeats of a node."""
        return self.spec.dispatcher.heartbeat_period or _HEARTBEAT_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Object):
    """``manager`` None: a worker. ``engine_id``: the id of the node's engine. ``data_path_addr``: the address of its
    VXLAN packets. ``ingress_address``: the node's own address on the ingress network, in CIDR notation, which the
    allocator assigns in a swarm of several nodes."""

    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager: ManagerStatus | None = None
    engine_id: str = ""
    data_path_addr: Annotated[str, OMIT] = ""
    ingress_address: Annotated[str, OMIT] = ""

    @property
    def encrypts(self) -> bool:
        """Whether it can have encrypted networks."""
        return ESP in (self.description.engine.plugins or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Object):
    """A node is alive: stored with a lease, so that it is deleted when heartbeats are missing. Its id is the node's.
    A swarm of one node has none: its state is stored where its tasks run. ``manager``: the id of the manager that the
    node follows; "": an earlier version has stored it."""

    manager: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImages(Object):
    """The images that a node has, as ``server.swarm.model.images`` makes ``keys``. Its id is the node's. No part of the
    node, because what a node is decides on its tasks, and changes seldom."""

    keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader(Object):
    """The manager that runs the controllers: stored with a lease, under the id ``LEADER``. A swarm in SQLite has none:
    its only manager is the leader."""

    node_id: str = ""


#: The id of the only ``Leader``.
LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatus(Record):
    """``state``: "updating", "paused", "completed", "rollback_started", "rollback_paused" or "rollback_completed"."""

    state: str = ""
    started_ns: Int64 = 0
    completed_ns: Int64 = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Object):
    """``spec_version`` counts the changes of the spec; a task with another number is updated, unless its spec is equal.
    ``endpoint``: what the allocator has assigned. ``job_iteration`` counts the runs of a job, ``job_started_ns`` is 0
    for other services. ``sealed_registry_auth``: the header ``X-Registry-Auth`` of the request that set the spec,
    sealed as in ``Cluster``; "": it had none."""

    spec: ServiceSpec = ServiceSpec()
    spec_version: Int64 = 1
    previous_spec: ServiceSpec | None = None
    previous_spec_version: Int64 = 0
    sealed_registry_auth: Annotated[str, OMIT] = ""
    previous_sealed_registry_auth: Annotated[str, OMIT] = ""
    endpoint: Endpoint = Endpoint()
    update_status: UpdateStatus | None = None
    job_iteration: Int64 = 0
    job_started_ns: Int64 = 0

    @property
    def name(self) -> str:
        return self.spec.name

    def virtual_ip(self, network_id: str) -> str:
        """The service's virtual address on a network, in CIDR notation; "": it has none."""
        virtual = self.endpoint.virtual_ips or ()
        return next((each.addr for each in virtual if each.network_id == network_id), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus(Record):
    """What was observed last. ``state``: a ``TaskState``. ``applied_by``: the id of the node that reported it."""

    state: Int64 = 0
    timestamp_ns: Int64 = 0
    message: str = ""
    err: Annotated[str, OMIT] = ""
    container: Annotated[ContainerStatus | None, OMIT] = None
    ports: Annotated[PortStatus | None, OMIT] = None
    applied_by: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment(Record):
    """A network of a task with the task's addresses on it, in CIDR notation. ``encrypted``: see ``Network``."""

    network_id: str = ""
    addresses: Strings = ()
    aliases: Strings = ()
    driver_opts: Annotated[StringMap | None, OMIT] = None
    encrypted: Annotated[bool, OMIT] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Object):
    """One instance of a service. ``slot``: the number of the replica, from 1, of a replicated job from 0
    (as in dockerd; the CLI counts on both); 0 for global services.

    ``spec``, ``service_name``, ``service_labels`` and ``endpoint`` are those of the service when the task was made or
    its addresses were assigned. ``desired_state``: a ``TaskState``. ``not_before_ns``: the task is a restart that is
    delayed: it has the desired state READY until then. ``running_ns``: when the managers stored that it runs.
    """

    spec: TaskSpec = TaskSpec()
    spec_version: Int64 = 0
    service_id: str = ""
    service_name: str = ""
    service_labels: StringMap | None = None
    slot: Int64 = 0
    node_id: str = ""
    status: TaskStatus = TaskStatus()
    desired_state: Int64 = int(TaskState.NEW)
    attachments: tuple[Attachment, ...] = ()
    endpoint: Endpoint = Endpoint()
    generic_resources: Annotated[tuple[GenericResource, ...] | None, OMIT] = None
    job_iteration: Int64 = 0
    not_before_ns: Annotated[Int64, OMIT] = 0
    running_ns: Annotated[Int64, OMIT] = 0

    @property
    def state(self) -> TaskState:
        return STATES[self.status.state]

    @property
    def desired(self) -> TaskState:
        return STATES[self.desired_state]

    @property
    def instance(self) -> str:
        """What the task is an instance of within its service: the slot, or for global services the node."""
        return str(self.slot) if self.slot else self.node_id

    def address(self, network_id: str) -> str:
        """The task's first address on a network; "": it has none."""
        for attachment in self.attachments:
            if attachment.network_id == network_id and attachment.addresses:
                return attachment.addresses[0].partition("/")[0]
        return ""

    @property
    def name(self) -> str:
        """The name of its container."""
        return f"{self.service_name}.{self.instance}.{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret(Object):
    """``spec`` without data. ``sealed``: the data, sealed by the swarm's data key."""

    spec: SecretSpec = SecretSpec()
    sealed: str = ""

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Object):
    """As ``Secret``."""

    spec: ConfigSpec = ConfigSpec()
    sealed: str = ""

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Object):
    """A network of the swarm. Of an overlay network, ``ipam`` has the assigned subnets and gateways, ``vni`` the VXLAN
    network identifier. Of a node-local one, see ``server.networks.overlay.model.SwarmNetwork``, both are empty."""

    name: str = ""
    labels: StringMap | None = None
    driver: str = OVERLAY
    options: StringMap | None = None
    ipam: IPAM = IPAM()
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: Annotated[ConfigReference | None, OMIT] = None
    vni: Int64 = 0

    @property
    def node_local(self) -> bool:
        """Whether each node has a network of its own for it."""
        return self.driver != OVERLAY

    @property
    def encrypted(self) -> bool:
        """Whether its packets between nodes are encrypted."""
        return ENCRYPTED in (self.options or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkKeys(Object):
    """The keys of the encrypted networks, under the id ``NETWORK_KEYS``; there are none without such networks.
    ``sealed``: the three of them, sealed as in ``Cluster``. ``updated_ns``: when they were made or rotated."""

    sealed: str = ""


#: The id of the only ``NetworkKeys``.
NETWORK_KEYS = "networks"
