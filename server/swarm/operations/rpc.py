"""The errors of dockerd's swarm manager. dockerd reaches the manager by gRPC, so clients read gRPC's form of an error:
``rpc error: code = InvalidArgument desc = …``."""

from engine.common.errors import Kind, WharfError


def malformed(message: str) -> WharfError:
    return WharfError(Kind.INVALID_ARGUMENT, f"rpc error: code = InvalidArgument desc = {message}")


def missing(message: str) -> WharfError:
    return WharfError(Kind.NOT_FOUND, f"rpc error: code = NotFound desc = {message}")


def exists(message: str) -> WharfError:
    return WharfError(Kind.CONFLICT, f"rpc error: code = AlreadyExists desc = {message}")


def precondition(message: str) -> WharfError:
    return WharfError(Kind.INVALID_ARGUMENT, f"rpc error: code = FailedPrecondition desc = {message}")


def unsupported(message: str) -> WharfError:
    return WharfError(Kind.NOT_IMPLEMENTED, f"rpc error: code = Unimplemented desc = {message}")


def out_of_sequence() -> WharfError:
    """The object has changed since the version that the client read. dockerd answers 500; it is the client's error."""
    return WharfError(Kind.CONFLICT, "rpc error: code = Unknown desc = update out of sequence")
