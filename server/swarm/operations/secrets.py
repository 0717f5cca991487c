"""Secrets and configs: create, update, remove, inspect, list. They differ in their size, and in that the data of a
config is shown."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from api_models.filters import Filters
from api_models.swarm.secret import ConfigSpec, SecretSpec
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Config, Secret, Service
from server.swarm.model.sealer import Sealer
from server.swarm.operations import payloads
from server.swarm.operations.rpc import exists, malformed, missing, out_of_sequence, unsupported
from server.swarm.operations.show import show_config, show_secret
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tables import NamedTable

P = TypeVar("P", Secret, Config)
S = TypeVar("S", SecretSpec, ConfigSpec)


class _Payloads(ABC, Generic[P, S]):
    """Call it while this node is a manager. Keys are ids, names or prefixes of ids."""

    noun = ""
    #: Data must be shorter, bytes.
    limit = 0
    filters: Sequence[str] = ()

    def __init__(self, state: State, sealer: Sealer) -> None:
        self._state = state
        self._sealer = sealer

    @property
    @abstractmethod
    def _table(self) -> NamedTable[P]: ...

    @abstractmethod
    def _make(self, id: str, now_ns: int, spec: S, sealed: str) -> P: ...

    @abstractmethod
    def _relabelled(self, item: P, spec: S, now_ns: int) -> P: ...

    @abstractmethod
    def _used(self, service: Service) -> Sequence[str]:
        """The ids that a service refers to."""

    @abstractmethod
    def _show(self, item: P) -> dict[str, Any]: ...

    def get(self, key: str) -> P:
        """:raises WharfError: NOT_FOUND; INVALID_ARGUMENT: ambiguous."""
        return self._table.get(key)

    def inspect(self, key: str) -> dict[str, Any]:
        """:raises WharfError: as ``get``."""
        return self._show(self.get(key))

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """:raises WharfError: INVALID_ARGUMENT: a filter."""
        filters.validate(self.filters)
        return [self._show(item) for item in payloads.select(self._table, filters)]

    async def create(self, spec: S) -> str:
        """Returns the id.

        :raises WharfError: INVALID_ARGUMENT; CONFLICT: the name is in use; NOT_IMPLEMENTED: a driver.
        """
        data = payloads.decode(spec.data)
        payloads.check(self.noun, spec, data, self.limit)
        item = self._make(new_id(), time.time_ns(), replace(spec, data=""), self._sealer.seal(data))

        def build() -> Sequence[Put]:
            if self._table.named(spec.name) is not None:
                raise exists(f"{self.noun} {spec.name} already exists")
            return [Put(item)]

        await self._state.transact(build)
        return item.id

    async def update(self, key: str, version: int, spec: S) -> None:
        """Replaces the labels. ``version``: that of the object as the client read it.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: the request changes more; CONFLICT: another version.
        """
        id = self.get(key).id

        def build() -> Sequence[Put]:
            item = self._table.find(id)
            if item is None:
                raise missing(f"{self.noun} {id} not found")
            payloads.check_update(item.name, spec, self._sealer.open(item.sealed))
            if item.version != version:
                raise out_of_sequence()
            return [Put(self._relabelled(item, spec, time.time_ns()))]

        await self._state.transact(build)

    async def remove(self, key: str) -> None:
        """:raises WharfError: NOT_FOUND; INVALID_ARGUMENT: a service uses it."""
        id = self.get(key).id

        def build() -> Sequence[Delete]:
            item = self._table.find(id)
            if item is None:
                raise missing(f"{self.noun} {id} not found")
            users = [service.name for service in self._state.tables.services if id in self._used(service)]
            payloads.in_use(self.noun, item.name, users)
            return [Delete(item)]

        await self._state.transact(build)


class Secrets(_Payloads[Secret, SecretSpec]):
    noun = "secret"
    limit = 500 * 1024
    filters = ("names", "name", "id", "label")

    @property
    def _table(self) -> NamedTable[Secret]:
        return self._state.tables.secrets

    async def create(self, spec: SecretSpec) -> str:
        if spec.driver is not None:
            if not spec.driver.name:
                raise malformed("secret driver must have a name")
            raise unsupported(f"secret drivers are not part of this engine: {spec.driver.name}")
        return await super().create(spec)

    def _make(self, id: str, now_ns: int, spec: SecretSpec, sealed: str) -> Secret:
        return Secret(id=id, created_ns=now_ns, updated_ns=now_ns, spec=spec, sealed=sealed)

    def _relabelled(self, item: Secret, spec: SecretSpec, now_ns: int) -> Secret:
        return replace(item, spec=replace(item.spec, labels=spec.labels), updated_ns=now_ns)

    def _used(self, service: Service) -> Sequence[str]:
        container = service.spec.task_template.container_spec
        return [each.secret_id for each in container.secrets or ()] if container is not None else ()

    def _show(self, item: Secret) -> dict[str, Any]:
        return show_secret(item)


class Configs(_Payloads[Config, ConfigSpec]):
    noun = "config"
    limit = 1000 * 1024
    filters = ("name", "id", "label")

    @property
    def _table(self) -> NamedTable[Config]:
        return self._state.tables.configs

    def _make(self, id: str, now_ns: int, spec: ConfigSpec, sealed: str) -> Config:
        return Config(id=id, created_ns=now_ns, updated_ns=now_ns, spec=spec, sealed=sealed)

    def _relabelled(self, item: Config, spec: ConfigSpec, now_ns: int) -> Config:
        return replace(item, spec=replace(item.spec, labels=spec.labels), updated_ns=now_ns)

    def _used(self, service: Service) -> Sequence[str]:
        container = service.spec.task_template.container_spec
        return [each.config_id for each in container.configs or ()] if container is not None else ()

    def _show(self, item: Config) -> dict[str, Any]:
        return show_config(item, self._sealer.open(item.sealed))
