"""The binding of servicers to the gRPC server (``engine.api.serving``), which turns headers into a ``Call`` and errors
into a status."""

from collections.abc import Mapping

from google.protobuf.descriptor import ServiceDescriptor

from engine.api.serving import Server, snake_case
from engine.api.types import LEASE_HEADER, NAMESPACE_HEADER
from engine.common.errors import Kind, WharfError
from engine.common.system import idle
from engine.supervisor.call import Call
from engine.supervisor.names import check_identifier


def add(server: Server, service: ServiceDescriptor, servicer: object, *, namespaced: bool = True) -> None:
    """Adds a service to the server. ``namespaced``: calls without a namespace header are refused.

    :raises TypeError: the servicer has a method that the service lacks.
    """
    methods = {snake_case(method.name) for method in service.methods}
    strays = {name for name in dir(type(servicer)) if not name.startswith("_") and name != "decoders"} - methods
    if strays:
        raise TypeError(f"{type(servicer).__name__}: {service.full_name} has no {', '.join(sorted(strays))}")
    server.add(service, servicer, _required if namespaced else _optional)


def _optional(headers: Mapping[str, str]) -> Call:
    idle.request_received()
    namespace = headers.get(NAMESPACE_HEADER, "")
    if namespace:
        check_identifier(namespace, "namespace validation")
    return Call(namespace, headers.get(LEASE_HEADER, ""))


def _required(headers: Mapping[str, str]) -> Call:
    call = _optional(headers)
    if not call.namespace:
        raise WharfError(Kind.FAILED_PRECONDITION, "namespace is required: failed precondition")
    return call
