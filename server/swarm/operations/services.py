"""Services: create, update, roll back, remove, inspect, list."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api_models.filters import Filters
from api_models.swarm.service import ServiceSpec
from engine.common.errors import WharfError, invalid
from server.containers.values import names
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Service, UpdateStatus
from server.swarm.operations import match, references, showservice
from server.swarm.operations.references import LocalNetwork
from server.swarm.operations.rpc import exists, missing, out_of_sequence, precondition, unsupported
from server.swarm.operations.spec import normalize
from server.swarm.operations.validate import ParseConstraints, check_spec
from server.swarm.state.state import Delete, Operation, Put, Refer, State

_FILTERS = ("name", "id", "label", "mode", "runtime")


@dataclass(frozen=True, slots=True)
class Registry:
    """What a service needs for its image. ``auth``: the client's credentials as it sent them, base64; "": none.
    ``pin``: returns the image's name with its digest, None: the client pins images itself."""

    auth: str = ""
    pin: Callable[[str], Awaitable[str]] | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """The parameters of an update. ``version``: that of the service as the client read it. ``auth_from``: "spec" or
    "previous-spec", whose credentials are kept if the client sends none. ``rollback``: "", "none" or "previous"."""

    version: int
    auth_from: str = ""
    rollback: str = ""


class Services:
    """Call it while this node is a manager. Keys are ids, names or prefixes of ids."""

    def __init__(
        self,
        state: State,
        seal: Callable[[bytes], str],
        parse_constraints: ParseConstraints,
        local_network: LocalNetwork,
    ) -> None:
        """``seal`` encrypts credentials for the store; ``parse_constraints``: see ``validate``."""
        self._state = state
        self._seal = seal
        self._parse_constraints = parse_constraints
        self._local_network = local_network

    def get(self, key: str) -> Service:
        """:raises WharfError: NOT_FOUND ``service x not found``; INVALID_ARGUMENT: ambiguous."""
        return self._state.tables.services.get(key)

    async def create(self, spec: ServiceSpec, registry: Registry) -> tuple[str, list[str]]:
        """Returns the id and warnings.

        :raises WharfError: INVALID_ARGUMENT; NOT_FOUND: a network; CONFLICT: the name is in use; NOT_IMPLEMENTED.
        """
        tables = self._state.tables
        spec = normalize(spec, name=self._random_name)
        check_spec(spec, self._parse_constraints)
        spec = references.resolve_networks(tables, spec, self._local_network)
        spec, warnings = await _pinned(spec, registry)
        now = time.time_ns()
        service = Service(
            id=new_id(),
            created_ns=now,
            updated_ns=now,
            spec=spec,
            job_started_ns=now if spec.mode.is_job else 0,
            sealed_registry_auth=self._seal(registry.auth.encode()) if registry.auth else "",
        )

        def build() -> Sequence[Operation]:
            self._check_references(spec, "")
            if tables.services.named(spec.name) is not None:
                raise exists(f"name conflicts with an existing object: service {spec.name} already exists")
            return _stored(service)

        await self._state.transact(build)
        return service.id, warnings

    def _random_name(self) -> str:
        return names.generate(new_id(), lambda name: self._state.tables.services.named(name) is not None)

    def _check_references(self, spec: ServiceSpec, service_id: str) -> None:
        tables = self._state.tables
        references.check_ports(tables, spec, service_id)
        references.check_ingress(tables, spec)
        references.check_networks(tables, spec)
        references.check_payloads(tables, spec)

    async def update(self, key: str, spec: ServiceSpec, options: Update, registry: Registry) -> list[str]:
        """Returns warnings. Controllers replace the tasks afterwards.

        :raises WharfError: as ``create``; CONFLICT: the version is not the current one.
        """
        if options.rollback not in ("", "none", "previous"):
            raise invalid(f"unrecognized rollback option {options.rollback}")
        spec = normalize(spec, name=lambda: "")
        spec = references.resolve_networks(self._state.tables, spec, self._local_network)
        service = self.get(key)
        check_spec(spec, self._parse_constraints)
        auth = self._auth(service, options, registry)
        spec, warnings = await _pinned(spec, registry)
        await self._state.transact(lambda: _stored(self._changed(service.id, spec, options, auth)))
        return warnings

    def _auth(self, service: Service, options: Update, registry: Registry) -> str:
        if registry.auth:
            return self._seal(registry.auth.encode())
        if options.auth_from == "previous-spec":
            if service.previous_spec is None:
                raise invalid("service does not have a previous spec")
            return service.previous_sealed_registry_auth
        return service.sealed_registry_auth

    def _changed(self, id: str, spec: ServiceSpec, options: Update, auth: str) -> Service:
        service = self._state.tables.services.find(id)
        if service is None:
            raise missing(f"service {id} not found")
        if spec.endpoint_spec is not None and spec.endpoint_spec != service.spec.endpoint_spec:
            references.check_ports(self._state.tables, spec, id)
        references.check_networks(self._state.tables, spec)
        references.check_payloads(self._state.tables, spec)
        if service.spec.mode.name != spec.mode.name:
            raise unsupported("service mode change is not allowed")
        if service.name != spec.name:
            raise unsupported("renaming services is not supported")
        references.check_ingress(self._state.tables, spec)
        if service.version != options.version:
            raise out_of_sequence()
        now = time.time_ns()
        if service.job_started_ns:
            service = replace(service, job_iteration=service.job_iteration + 1, job_started_ns=now)
        service = replace(service, updated_ns=now)
        return _rolled_back(service, now) if options.rollback == "previous" else _replaced(service, spec, auth)

    async def remove(self, key: str) -> None:
        """Removes the service; controllers stop and remove its tasks.

        :raises WharfError: NOT_FOUND.
        """
        id = self.get(key).id

        def build() -> Sequence[Delete]:
            service = self._state.tables.services.find(id)
            if service is None:
                raise missing(f"service {id} not found")
            return [Delete(service)]

        await self._state.transact(build)

    def inspect(self, key: str, *, defaults: bool = False) -> dict[str, Any]:
        """:raises WharfError: NOT_FOUND."""
        return showservice.show_service(self.get(key), defaults=defaults)

    def list(self, filters: Filters, *, status: bool = False) -> list[dict[str, Any]]:
        """``status``: with the numbers of tasks.

        :raises WharfError: INVALID_ARGUMENT: a filter.
        """
        filters.validate(_FILTERS)
        tables = self._state.tables
        runtimes = filters.get("runtime") or ("container",)
        shown = []
        for service in sorted(tables.services, key=lambda each: each.id):
            if (
                match.prefixed(service.name, filters.get("name"))
                and match.prefixed(service.id, filters.get("id"))
                and match.labelled(service.spec.labels, filters.get("label"))
                and ("mode" not in filters or filters.exact("mode", service.spec.mode.name))
                and service.spec.task_template.runtime in runtimes
            ):
                counts = showservice.count(service, tables.tasks.of_service(service.id)) if status else None
                shown.append(showservice.show_service(service, counts))
        return shown


def _stored(service: Service) -> Sequence[Operation]:
    return [Put(service), *([Refer()] if references.any_of(service.spec) else ())]


def _replaced(service: Service, spec: ServiceSpec, auth: str) -> Service:
    return replace(
        service,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        previous_sealed_registry_auth=service.sealed_registry_auth,
        spec=spec,
        # Higher than any earlier one, also after a rollback.
        spec_version=max(service.spec_version, service.previous_spec_version) + 1,
        sealed_registry_auth=auth,
        update_status=None,
    )


def _rolled_back(service: Service, now: int) -> Service:
    if service.previous_spec is None:
        raise precondition(f"service {service.id} does not have a previous spec")
    return replace(
        service,
        spec=service.previous_spec,
        spec_version=service.previous_spec_version,
        sealed_registry_auth=service.previous_sealed_registry_auth,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        previous_sealed_registry_auth=service.sealed_registry_auth,
        update_status=UpdateStatus(state="rollback_started", started_ns=now, message="manually requested rollback"),
    )


async def _pinned(spec: ServiceSpec, registry: Registry) -> tuple[ServiceSpec, list[str]]:
    container = spec.task_template.container_spec
    if registry.pin is None or container is None:
        return spec, []
    try:
        image = await registry.pin(container.image)
    except WharfError:
        image = container.image
        warning = (
            f"image {image} could not be accessed on a registry to record\nits digest. Each node will access {image}"
            " independently,\npossibly leading to different nodes running different\nversions of the image.\n"
        )
        return spec, [warning]
    task = replace(spec.task_template, container_spec=replace(container, image=image))
    return replace(spec, task_template=task), []
