"""The container of a task: its name, its labels, and the create request for the container service."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface

from api_models.container import ContainerConfig
from api_models.network import EndpointIPAMConfig, EndpointSettings
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import GenericResource
from engine.common.errors import WharfError, invalid, not_implemented
from server.containers.create.create import CreateRequest
from server.registry.reference import parse
from server.swarm.agent.hostconfig import host_config, port_key, published
from server.swarm.agent.template import expand
from server.swarm.model.objects import PREDEFINED, Attachment, Task

_PREFIX = "com.docker.swarm"
TASK_LABEL = f"{_PREFIX}.task.id"
NODE_LABEL = f"{_PREFIX}.node.id"
SERVICE_LABEL = f"{_PREFIX}.service.id"


def create_request(
    task: Task,
    node: NodeDescription,
    private_binds: Mapping[str, str] | None = None,
) -> CreateRequest:
    """The networks of the task are named by their ids. ``private_binds``: see ``Container``.

    :raises WharfError: the spec is invalid or not supported; its message is the task's error.
    """
    spec = task.spec.container_spec
    if spec is None:
        raise not_implemented(f"unsupported runtime: {task.spec.runtime or 'none'}")
    if not spec.image:
        raise invalid("dockerexec: image required")
    spec = expand(spec, task, node)
    first = task.attachments[0].network_id if task.attachments else ""
    # Without a command, the arguments are those of the image's entrypoint.
    config = ContainerConfig(
        image=image_name(spec.image),
        labels=_labels(task, spec.labels),
        entrypoint=spec.command or None,
        cmd=spec.args or None,
        hostname=spec.hostname,
        env=(*(spec.env or ()), *_resource_variables(task.generic_resources or ())) or None,
        working_dir=spec.dir,
        user=spec.user,
        stop_signal=spec.stop_signal,
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        exposed_ports={port_key(port): {} for port in published(task)} or None,
        healthcheck=spec.healthcheck,
    )
    return CreateRequest(
        config,
        host_config(task, spec, first if first in PREDEFINED else "bridge"),
        _endpoints(task),
        name=task.name,
        managed=True,
        private_binds=private_binds or {},
    )


def image_name(text: str) -> str:
    """The familiar name of the image with a tag or a digest; what can't be parsed stays as it is."""
    try:
        return parse(text).tagged().familiar
    except WharfError:
        return text


def _labels(task: Task, own: Mapping[str, str] | None) -> dict[str, str]:
    system = {
        "task": "",
        "task.id": task.id,
        "task.name": task.name,
        "node.id": task.node_id,
        "service.id": task.service_id,
        "service.name": task.service_name,
    }
    return {**(own or {}), **{f"{_PREFIX}.{key}": value for key, value in system.items()}}


def _resource_variables(resources: tuple[GenericResource, ...]) -> list[str]:
    """``DOCKER_RESOURCE_<KIND>``: the named units, or the number, that the task has of a generic resource."""
    values: dict[str, list[str]] = {}
    for resource in resources:
        if (named := resource.named_resource_spec) is not None:
            values.setdefault(named.kind, []).append(named.value)
        elif (discrete := resource.discrete_resource_spec) is not None:
            values.setdefault(discrete.kind, []).append(str(discrete.value))
    return [f"{f'DOCKER_RESOURCE_{kind}'.upper()}={','.join(found)}" for kind, found in values.items()]


def _endpoints(task: Task) -> dict[str, EndpointSettings]:
    found: dict[str, EndpointSettings] = {}
    for attachment in task.attachments:
        if attachment.network_id in PREDEFINED:
            found[attachment.network_id] = EndpointSettings()
            continue
        settings = EndpointSettings(
            ipam_config=_addresses(attachment),
            aliases=attachment.aliases or None,
            driver_opts=attachment.driver_opts,
        )
        found[attachment.network_id] = settings
    return found


def _addresses(attachment: Attachment) -> EndpointIPAMConfig | None:
    chosen = EndpointIPAMConfig()
    for text in attachment.addresses:
        try:
            address = ip_interface(text).ip
        except ValueError:
            raise invalid(f"invalid address {text} on network {attachment.network_id}") from None
        if address.version == 4:
            chosen = replace(chosen, ipv4_address=str(address))
        else:
            chosen = replace(chosen, ipv6_address=str(address))
    return chosen if chosen != EndpointIPAMConfig() else None
