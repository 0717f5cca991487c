"""Which nodes can run a task. Sentences are SwarmKit's (manager/scheduler/filter.go)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from api_models.swarm.task import Platform
from server.networks.overlay.model import NO_ESP
from server.swarm.controllers.constraints import node_matches
from server.swarm.controllers.scheduler.nodes import NodeUsage, host_ports, reservations
from server.swarm.model.objects import Task

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class _Filter:
    """``applies`` says whether a task asks for anything that ``passes`` checks. ``one`` and ``several``: what a failure
    means on one node and on several."""

    applies: Callable[[Task], bool]
    passes: Callable[[Task, NodeUsage], bool]
    one: str
    several: str


class Filters:
    """The filters of one task; tasks with the same spec have the same."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._filters: Sequence[_Filter] = [each for each in _FILTERS if each.applies(task)]

    def passes(self, usage: NodeUsage) -> bool:
        return all(each.passes(self._task, usage) for each in self._filters)

    def explain(self, nodes: Iterable[NodeUsage]) -> str:
        """Why none of the nodes can run the task, the most frequent reason first; "": there is no node."""
        failures = [0] * len(self._filters)
        for usage in nodes:
            for position, each in enumerate(self._filters):
                if not each.passes(self._task, usage):
                    failures[position] += 1
                    break
        found = [(count, each) for count, each in zip(failures, self._filters, strict=True) if count]
        found.sort(key=lambda pair: -pair[0])
        return "; ".join(each.one if count == 1 else each.several.format(count) for count, each in found)


def _is_ready(_: Task, usage: NodeUsage) -> bool:
    return usage.node.status.state == "ready" and usage.node.spec.availability == "active"


def _reserves(task: Task) -> bool:
    reserved = reservations(task)
    return bool(reserved.nano_cpus or reserved.memory_bytes or reserved.generic_resources)


def _has_resources(task: Task, usage: NodeUsage) -> bool:
    reserved = reservations(task)
    return (
        reserved.nano_cpus <= usage.nano_cpus
        and reserved.memory_bytes <= usage.memory_bytes
        and usage.generic.enough(reserved.generic_resources or ())
    )


def _volume_drivers(task: Task) -> set[str]:
    container = task.spec.container_spec
    names = set()
    for mount in container.mounts or () if container is not None else ():
        options = mount.volume_options
        if mount.type == "volume" and options is not None and options.driver_config is not None:
            names.add(options.driver_config.name)
    return names - {"", "local"}


def _log_driver(task: Task) -> str:
    """The log driver of the spec; "": any node has it."""
    driver = task.spec.log_driver
    return "" if driver is None or driver.name == "none" else driver.name


def _has_plugins(task: Task, usage: NodeUsage) -> bool:
    plugins: dict[str, set[str]] = {}
    for plugin in usage.node.description.engine.plugins or ():
        plugins.setdefault(plugin.type, set()).add(plugin.name.removesuffix(":latest"))
    if not _volume_drivers(task) <= plugins.get("Volume", set()):
        return False
    log = _log_driver(task)
    # A node that reports no log drivers at all is not excluded by them.
    return not log or "Log" not in plugins or log in plugins["Log"]


def _constraints(task: Task) -> Sequence[str]:
    placement = task.spec.placement
    return placement.constraints or () if placement is not None else ()


def _platforms(task: Task) -> Sequence[Platform]:
    placement = task.spec.placement
    return placement.platforms or () if placement is not None else ()


def _is_platform(task: Task, usage: NodeUsage) -> bool:
    platform = usage.node.description.platform
    return any(
        _architecture(wanted) in ("", _architecture(platform)) and wanted.os in ("", platform.os)
        for wanted in _platforms(task)
    )


def _architecture(platform: Platform) -> str:
    return _ARCHITECTURES.get(platform.architecture, platform.architecture)


def _max_replicas(task: Task) -> int:
    placement = task.spec.placement
    return placement.max_replicas if placement is not None else 0


# In SwarmKit's order: the first filter that a node does not pass is the reason. SwarmKit knows no kernels without ESP.
_FILTERS: Sequence[_Filter] = (
    _Filter(
        lambda _: True,
        _is_ready,
        "1 node not available for new tasks",
        "{} nodes not available for new tasks",
    ),
    _Filter(_reserves, _has_resources, "insufficient resources on 1 node", "insufficient resources on {} nodes"),
    _Filter(
        lambda task: bool(_log_driver(task) or _volume_drivers(task)),
        _has_plugins,
        "missing plugin on 1 node",
        "missing plugin on {} nodes",
    ),
    _Filter(
        lambda task: bool(_constraints(task)),
        lambda task, usage: node_matches(_constraints(task), usage.node),
        "scheduling constraints not satisfied on 1 node",
        "scheduling constraints not satisfied on {} nodes",
    ),
    _Filter(
        lambda task: bool(_platforms(task)),
        _is_platform,
        "unsupported platform on 1 node",
        "unsupported platform on {} nodes",
    ),
    _Filter(
        lambda task: any(attachment.encrypted for attachment in task.attachments),
        lambda _, usage: usage.node.encrypts,
        f"{NO_ESP} on 1 node",
        f"{NO_ESP} on {{}} nodes",
    ),
    _Filter(
        lambda task: any(True for _ in host_ports(task)),
        lambda task, usage: usage.ports.isdisjoint(host_ports(task)),
        "host-mode port already in use on 1 node",
        "host-mode port already in use on {} nodes",
    ),
    _Filter(
        lambda task: _max_replicas(task) > 0,
        lambda task, usage: usage.of_service(task.service_id) < _max_replicas(task),
        "max replicas per node limit exceed",
        "max replicas per node limit exceed",
    ),
)
