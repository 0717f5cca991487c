"""Tables of objects with the look-ups that operations and controllers use."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from engine.common.errors import WharfError, invalid, not_found
from server.swarm.model.objects import (
    LEADER,
    NETWORK_KEYS,
    Cluster,
    Config,
    Leader,
    Network,
    NetworkKeys,
    Node,
    NodeImages,
    Object,
    Secret,
    Service,
    Session,
    Task,
)
from server.swarm.model.taskstate import TaskState

T = TypeVar("T", bound=Object)


class Table(Generic[T]):
    """The objects of one kind, by id."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def find(self, id: str) -> T | None:
        return self._items.get(id)

    def put(self, item: T) -> T | None:
        """Adds or replaces an object; returns the former one."""
        former = self._items.get(item.id)
        self._items[item.id] = item
        return former

    def pop(self, id: str) -> T | None:
        return self._items.pop(id, None)

    def match(self, key: str) -> T | None:
        """The object with this id, or else the only one whose id begins with ``key``.

        :raises WharfError: INVALID_ARGUMENT: several ids begin with it.
        """
        if (item := self._items.get(key)) is not None:
            return item
        if not key:
            return None
        found = [item for id, item in self._items.items() if id.startswith(key)]
        if len(found) > 1:
            raise ambiguous(self.noun, key, len(found))
        return found[0] if found else None

    def get(self, key: str) -> T:
        """As ``match``.

        :raises WharfError: also NOT_FOUND.
        """
        item = self.match(key)
        if item is None:
            raise self.missing(key)
        return item

    noun = ""

    def missing(self, key: str) -> WharfError:
        return not_found(f"{self.noun} {key} not found")


N = TypeVar("N", bound=Service | Secret | Config | Network)


class NamedTable(Table[N], Generic[N]):
    """A table whose objects have unique names. ``match`` finds by id, then by name, then by a prefix of the id."""

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun
        self._names: dict[str, str] = {}

    def put(self, item: N) -> N | None:
        former = super().put(item)
        if former is not None and former.name != item.name:
            self._names.pop(former.name, None)
        self._names[item.name] = item.id
        return former

    def pop(self, id: str) -> N | None:
        former = super().pop(id)
        if former is not None and self._names.get(former.name) == id:
            del self._names[former.name]
        return former

    def named(self, name: str) -> N | None:
        id = self._names.get(name)
        return None if id is None else self.find(id)

    def match(self, key: str) -> N | None:
        return self.find(key) or self.named(key) or super().match(key)


class Nodes(Table[Node]):
    noun = "node"


class Tasks(Table[Task]):
    """Tasks, also by service, by node, and by the addresses of those that have not ended."""

    noun = "task"

    def __init__(self) -> None:
        super().__init__()
        self._by_service: dict[str, dict[str, Task]] = {}
        self._by_node: dict[str, dict[str, Task]] = {}
        # How many tasks have an address, by network and address: two at most, if a user requested one that is in use.
        self._addresses: dict[tuple[str, str], int] = {}
        self._changes: dict[str, int] = {}

    def put(self, item: Task) -> Task | None:
        former = super().put(item)
        if former is None:
            self._count(item, 1)
            self._note(item.node_id)
        else:
            if former.node_id != item.node_id or former.service_id != item.service_id:
                self._forget(former)
            if former.attachments != item.attachments or former.state.ended != item.state.ended:
                self._count(former, -1)
                self._count(item, 1)
            if _use(former) != _use(item):
                self._note(former.node_id)
                self._note(item.node_id)
        self._by_service.setdefault(item.service_id, {})[item.id] = item
        self._by_node.setdefault(item.node_id, {})[item.id] = item
        return former

    def pop(self, id: str) -> Task | None:
        former = super().pop(id)
        if former is not None:
            self._forget(former)
            self._count(former, -1)
            self._note(former.node_id)
        return former

    def _note(self, node_id: str) -> None:
        self._changes[node_id] = self._changes.get(node_id, 0) + 1

    def _count(self, task: Task, number: int) -> None:
        if task.state.ended:
            return
        for attachment in task.attachments:
            for address in attachment.addresses:
                key = attachment.network_id, address
                count = self._addresses.get(key, 0) + number
                if count:
                    self._addresses[key] = count
                else:
                    self._addresses.pop(key, None)

    def _forget(self, task: Task) -> None:
        for index, key in ((self._by_service, task.service_id), (self._by_node, task.node_id)):
            tasks = index.get(key)
            if tasks is not None:
                tasks.pop(task.id, None)
                if not tasks:
                    del index[key]

    def of_service(self, service_id: str) -> list[Task]:
        return list(self._by_service.get(service_id, _NONE).values())

    def of_node(self, node_id: str) -> list[Task]:
        """The tasks that are assigned to a node; "": to none."""
        return list(self._by_node.get(node_id, _NONE).values())

    def has_address(self, network_id: str, address: str) -> bool:
        """Whether a task that has not ended has the address, which is in CIDR notation."""
        return (network_id, address) in self._addresses

    def changes_of_node(self, node_id: str) -> int:
        """A number that is another one after each change of what the tasks of a node use there."""
        return self._changes.get(node_id, 0)


def _use(task: Task) -> tuple[str, bool, int]:
    """What decides on the use of a node, beside the spec, which a task keeps."""
    state = task.status.state
    runs = TaskState.ASSIGNED <= state <= TaskState.RUNNING
    return task.node_id, task.desired_state <= TaskState.COMPLETE, 0 if runs else state


_NONE: Mapping[str, Task] = {}


def ambiguous(noun: str, key: str, number: int) -> WharfError:
    """The error of a prefix that several ids have."""
    return invalid(f"{noun} {key} is ambiguous ({number} matches found)")


class Tables:
    """All objects of the swarm."""

    def __init__(self) -> None:
        self.cluster: Table[Cluster] = Table()
        self.nodes = Nodes()
        self.services: NamedTable[Service] = NamedTable("service")
        self.tasks = Tasks()
        self.secrets: NamedTable[Secret] = NamedTable("secret")
        self.configs: NamedTable[Config] = NamedTable("config")
        self.networks: NamedTable[Network] = NamedTable("network")
        self.keyrings: Table[NetworkKeys] = Table()
        self.images: Table[NodeImages] = Table()
        self.sessions: Table[Session] = Table()
        self.leaders: Table[Leader] = Table()
        self._by_class: Mapping[type[Object], Table[Object]] = {
            Cluster: self.cluster,  # type: ignore[dict-item]
            Node: self.nodes,  # type: ignore[dict-item]
            Service: self.services,  # type: ignore[dict-item]
            Task: self.tasks,  # type: ignore[dict-item]
            Secret: self.secrets,  # type: ignore[dict-item]
            Config: self.configs,  # type: ignore[dict-item]
            Network: self.networks,  # type: ignore[dict-item]
            NetworkKeys: self.keyrings,  # type: ignore[dict-item]
            NodeImages: self.images,  # type: ignore[dict-item]
            Session: self.sessions,  # type: ignore[dict-item]
            Leader: self.leaders,  # type: ignore[dict-item]
        }

    @property
    def ingress(self) -> Network | None:
        """The network of the routing mesh; None: it was removed."""
        return next((network for network in self.networks if network.ingress), None)

    @property
    def network_keys(self) -> NetworkKeys | None:
        return self.keyrings.find(NETWORK_KEYS)

    @property
    def leader(self) -> Leader | None:
        """None: nobody is the leader now, or the swarm is in SQLite."""
        return self.leaders.find(LEADER)

    def of(self, cls: type[Object]) -> Table[Object]:
        return self._by_class[cls]
