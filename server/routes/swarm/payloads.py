"""/secrets and /configs: thin handlers."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from api_models.filters import Filters
from api_models.supported import spelled
from api_models.swarm.secret import ConfigSpec, SecretSpec
from engine.common.errors import invalid
from server.http import params
from server.http.answers import json_answer, no_content
from server.routes.swarm.common import manager_of, version_of
from server.swarm.manager import Manager

S = TypeVar("S", bound=SecretSpec | ConfigSpec)
S_contra = TypeVar("S_contra", bound=SecretSpec | ConfigSpec, contravariant=True)


class _Operations(Protocol[S_contra]):
    def list(self, filters: Filters) -> list[dict[str, Any]]: ...

    def inspect(self, key: str) -> dict[str, Any]: ...

    async def create(self, spec: S_contra) -> str: ...

    async def update(self, key: str, version: int, spec: S_contra) -> None: ...

    async def remove(self, key: str) -> None: ...


class _Payloads(Generic[S]):
    """The handlers of one kind. ``operations`` returns those of a manager."""

    def __init__(self, noun: str, spec: type[S], operations: Callable[[Manager], _Operations[S]]) -> None:
        self._noun = noun
        self._spec = spec
        self._operations = operations

    def _of(self, request: Request) -> _Operations[S]:
        return self._operations(manager_of(request))

    async def listing(self, request: Request) -> Response:
        return json_answer(self._of(request).list(params.filters(request)))

    async def create(self, request: Request) -> Response:
        spec = await params.body(request, self._spec)
        version = params.version_of(request)
        if spec.templating is not None and version < (1, 37):
            raise invalid(f"{self._noun} templating is not supported on the specified API version: {spelled(version)}")
        return json_answer({"ID": await self._of(request).create(spec)}, 201)

    async def inspect(self, request: Request) -> Response:
        return json_answer(self._of(request).inspect(request.path_params["id"]))

    async def remove(self, request: Request) -> Response:
        await self._of(request).remove(request.path_params["id"])
        return no_content()

    async def update(self, request: Request) -> Response:
        spec = await params.body(request, self._spec)
        version = version_of(request, self._noun, reason=False)
        await self._of(request).update(request.path_params["id"], version, spec)
        return no_content(200)


secrets = _Payloads("secret", SecretSpec, lambda manager: manager.objects.secrets)
configs = _Payloads("config", ConfigSpec, lambda manager: manager.objects.configs)
