"""The binding of servicers to the gRPC server (``engine.api.serving``), which turns headers into a ``Call`` and errors
into a status."""

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import ServiceDescriptor

from engine.api import serving
from engine.api.types import LEASE_HEADER, NAMESPACE_HEADER
from engine.common.errors import Kind, WharfError
from engine.common.system import idle
from engine.supervisor.call import Call
from engine.supervisor.names import check_identifier

if TYPE_CHECKING:
    import grpc


def handler(
    service: ServiceDescriptor, servicer: object, *, namespaced: bool = True
) -> "grpc.GenericRpcHandler[Any, Any]":
    """The gRPC handler of one service. ``namespaced``: calls without a namespace header are refused.

    :raises TypeError: the servicer has a method that the service lacks.
    """
    methods = {serving.snake_case(method.name) for method in service.methods}
    strays = {name for name in dir(type(servicer)) if not name.startswith("_") and name != "decoders"} - methods
    if strays:
        raise TypeError(f"{type(servicer).__name__}: {service.full_name} has no {', '.join(sorted(strays))}")
    return serving.handler(service, servicer, _required if namespaced else _optional)


def _headers(context: Any) -> Call:
    idle.request_received()
    namespace = lease = ""
    for key, value in context.invocation_metadata() or ():
        if key == NAMESPACE_HEADER:
            namespace = str(value)
        elif key == LEASE_HEADER:
            lease = str(value)
    if namespace:
        check_identifier(namespace, "namespace validation")
    return Call(namespace, lease)


def _required(context: Any) -> Call:
    call = _headers(context)
    if not call.namespace:
        raise WharfError(Kind.FAILED_PRECONDITION, "namespace is required: failed precondition")
    return call


def _optional(context: Any) -> Call:
    return _headers(context)
