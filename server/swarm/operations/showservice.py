"""Services and tasks as the API shows them, in the form of the newest version."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from api_models.times import rfc3339
from server.networks import options
from server.swarm.model.objects import Attachment, Network, Object, Service, Task, UpdateStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.spec import with_defaults
from server.swarm.state.tables import Tables


@dataclass(frozen=True, slots=True)
class Counts:
    """The tasks of a service (``ServiceStatus``)."""

    running: int
    desired: int
    completed: int


def count(service: Service, tasks: Iterable[Task]) -> Counts:
    """Counts as ``docker service ls`` shows them: of a job only the tasks of its current run."""
    mode, desired = service.spec.mode, 0
    everywhere = mode.global_ is not None or mode.global_job is not None
    if mode.replicated is not None:
        desired = mode.replicated.replicas or 0
    elif mode.replicated_job is not None:
        desired = mode.replicated_job.max_concurrent or 0
    running = completed = 0
    for task in tasks:
        if mode.is_job and task.job_iteration != service.job_iteration:
            continue
        running += task.state is TaskState.RUNNING
        completed += mode.is_job and task.state is TaskState.COMPLETE
        desired += everywhere and (
            task.desired is TaskState.RUNNING
            or (task.desired is TaskState.COMPLETE and task.state is not TaskState.COMPLETE)
        )
    return Counts(running, desired, completed)


def show_service(service: Service, counts: Counts | None = None, *, defaults: bool = False) -> dict[str, Any]:
    """``defaults``: with SwarmKit's defaults in the spec. ``counts``: for ``ServiceStatus``."""
    spec = with_defaults(service.spec) if defaults else service.spec
    shown = {**meta(service), "Spec": spec.wire()}
    if service.previous_spec is not None:
        shown["PreviousSpec"] = service.previous_spec.wire()
    shown["Endpoint"] = service.endpoint.wire()
    if service.update_status is not None:
        shown["UpdateStatus"] = _update(service.update_status)
    if counts is not None:
        shown["ServiceStatus"] = {
            "RunningTasks": counts.running,
            "DesiredTasks": counts.desired,
            "CompletedTasks": counts.completed,
        }
    if service.job_started_ns:
        shown["JobStatus"] = {
            "JobIteration": _version(service.job_iteration),
            "LastExecution": rfc3339(service.job_started_ns),
        }
    return shown


def _update(status: UpdateStatus) -> dict[str, Any]:
    shown = {"State": status.state}
    if status.started_ns:
        shown["StartedAt"] = rfc3339(status.started_ns)
    if status.completed_ns:
        shown["CompletedAt"] = rfc3339(status.completed_ns)
    if status.message:
        shown["Message"] = status.message
    return shown


def show_task(task: Task, tables: Tables) -> dict[str, Any]:
    status: dict[str, Any] = {
        "Timestamp": rfc3339(task.status.timestamp_ns),
        "State": task.state.text,
        "Message": task.status.message,
        "Err": task.status.err,
        "ContainerStatus": task.status.container.wire() if task.status.container is not None else None,
        "PortStatus": task.status.ports.wire() if task.status.ports is not None else {},
    }
    shown: dict[str, Any] = {
        **meta(task),
        "Labels": {},
        # Tasks of containers don't name their runtime.
        "Spec": replace(task.spec, runtime="").wire(),
        "ServiceID": task.service_id,
        "Slot": task.slot,
        "NodeID": task.node_id,
        "Status": {key: value for key, value in status.items() if value or key == "PortStatus"},
        "DesiredState": task.desired.text,
        "NetworksAttachments": [_attachment(each, tables) for each in task.attachments],
        "GenericResources": [resource.wire() for resource in task.generic_resources or ()],
    }
    service = tables.services.find(task.service_id)
    if service is not None and service.job_started_ns:
        shown["JobIteration"] = _version(task.job_iteration)
    return {key: value for key, value in shown.items() if value or key in _ALWAYS}


_ALWAYS = frozenset(("ID", "Version", "Labels", "Spec", "Status", "DesiredState", "JobIteration"))


def _attachment(attachment: Attachment, tables: Tables) -> dict[str, Any]:
    network = tables.networks.find(attachment.network_id)
    shown = show_network(network) if network is not None else {"ID": attachment.network_id}
    return {"Network": shown, **({"Addresses": list(attachment.addresses)} if attachment.addresses else {})}


def show_network(network: Network) -> dict[str, Any]:
    """A network within a task: SwarmKit's object, not that of ``docker network inspect``."""
    configs = [{"Subnet": pool.subnet, "Gateway": pool.gateway} for pool in network.ipam.config or ()]
    flags = {
        "IPv6Enabled": network.enable_ipv6,
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
    }
    spec: dict[str, Any] = {"Name": network.name, "Labels": dict(network.labels or {})}
    spec["DriverConfiguration"] = {"Name": network.driver}
    if network.options:
        spec["DriverConfiguration"]["Options"] = dict(network.options)
    spec.update({key: True for key, value in flags.items() if value})
    spec["IPAMOptions"] = {"Driver": {"Name": network.ipam.driver or "default"}}
    spec["Scope"] = "swarm"
    if network.config_from is not None:
        spec["ConfigFrom"] = network.config_from.wire()
    if network.node_local:
        return {**meta(network), "Spec": spec, "DriverState": {"Name": network.driver}, "IPAMOptions": {"Driver": {}}}
    return {
        **meta(network),
        "Spec": spec,
        "DriverState": {
            "Name": network.driver,
            "Options": {options.VNI: str(network.vni)},
        },
        "IPAMOptions": {"Driver": {"Name": network.ipam.driver or "default"}, "Configs": configs},
    }


def meta(item: Object) -> dict[str, Any]:
    """``ID``, ``Version`` and the times, with which every object begins."""
    return {
        "ID": item.id,
        "Version": _version(item.version),
        "CreatedAt": rfc3339(item.created_ns),
        "UpdatedAt": rfc3339(item.updated_ns),
    }


def _version(index: int) -> Mapping[str, int]:
    return {"Index": index} if index else {}
