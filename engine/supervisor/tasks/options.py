"""Converts the runtime and stdio options of a create request for the shim."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from engine.api.pb import runc_options_pb2 as options_pb
from engine.api.stdio import SCHEME, StdioUri
from engine.api.types import AnyValue
from engine.common import jsontext
from engine.common.errors import WharfError, invalid, not_found, not_implemented
from engine.common.system import private
from engine.common.system.run import DEFAULT_ENV
from engine.runtime.probe import dialect_of, probe
from engine.shim.runtime.oci import Runtime

RUNC_V2 = "io.containerd.runc.v2"
_RUNTIMES = frozenset((RUNC_V2, "io.containerd.runc.v1", "io.containerd.runtime.v1.linux"))


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """The runtime and its flags for one container."""

    runtime: Runtime
    no_pivot: bool = False
    no_new_keyring: bool = False


def runtime_options(name: str, options: AnyValue | None, *, root: str, namespace: str) -> RuntimeOptions:
    """``name`` and ``options`` are the container record's (``containerd.runc.v1.Options`` or None).

    :raises WharfError: INVALID_ARGUMENT for another runtime, NOT_FOUND if the program doesn't exist.
    """
    if name not in _RUNTIMES:
        raise invalid(
            f"failed to start shim: failed to resolve runtime path: invalid runtime name {name},"
            f' this engine runs "{RUNC_V2}"'
        )
    requested = options_pb.Options()
    if options is not None and options.value:
        requested = options.unpack(options_pb.Options)
    for field in ("shim_cgroup", "io_uid", "io_gid"):
        if getattr(requested, field):
            raise not_implemented(f"runtime option {field} is not supported")
    if requested.binary_name:
        path = _find(requested.binary_name)
        dialect = dialect_of(path)
    else:
        binary = probe().require()
        path, dialect = binary.path, binary.dialect
    directory = os.path.join(requested.root or os.path.join(root, dialect), namespace)
    private.make_directory(directory)
    runtime = Runtime(dialect, path, directory, requested.systemd_cgroup)
    return RuntimeOptions(runtime, requested.no_pivot_root, requested.no_new_keyring)


#: The runtimes' flags for fields of ``CheckpointOptions``.
_CHECKPOINT_FLAGS = {
    "open_tcp": "--tcp-established",
    "external_unix_sockets": "--ext-unix-sk",
    "terminal": "--shell-job",
    "file_locks": "--file-locks",
}


def restored_from(options: AnyValue | None) -> str:
    """The directory of the checkpoint that the task is restored from; "" if it is created."""
    return options.unpack(options_pb.Options).criu_image_path if options is not None and options.value else ""


def checkpoint_options(options: AnyValue | None) -> tuple[str, list[str]]:
    """The directory of a checkpoint, and the runtime's options for it.

    :raises WharfError: NOT_IMPLEMENTED for a checkpoint into the content store.
    """
    requested = options_pb.CheckpointOptions()
    if options is not None and options.value:
        requested = options.unpack(options_pb.CheckpointOptions)
    if not requested.image_path:
        raise not_implemented("checkpoints are written to an image_path only")
    flags = [flag for name, flag in _CHECKPOINT_FLAGS.items() if getattr(requested, name)]
    if requested.cgroups_mode:
        flags += ["--manage-cgroups-mode", requested.cgroups_mode]
    return requested.image_path, flags if requested.exit else [*flags, "--leave-running"]


def _find(name: str) -> str:
    path = shutil.which(name, path=DEFAULT_ENV["PATH"])
    if path is None:
        raise not_found(f'exec: "{name}": executable file not found in $PATH')
    return path


def shim_stdio(stdin: str, stdout: str, stderr: str, *, terminal: bool) -> dict[str, object]:
    """The three URIs of a request in the shim's form; see ``engine.shim.container.process.Process``.

    :raises WharfError: NOT_IMPLEMENTED for an unsupported scheme, INVALID_ARGUMENT for a malformed URI.
    """
    if stdout.startswith(SCHEME + "://"):
        if stdin or stderr:
            raise invalid("stdin and stderr must be empty with this stdout URI")
        uri = StdioUri.parse(stdout)
        return {"terminal": terminal, "socket": uri.socket, "options": {"driver": "none", **uri.options}}
    result: dict[str, object] = {"terminal": terminal}
    for name, value in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        if value.startswith("fifo://"):
            value = value.removeprefix("fifo://")
        elif value.startswith("file://") and name != "stdin":
            pass
        elif "://" in value:
            raise not_implemented(f"{name} {value}: the scheme is not supported")
        if value and not value.removeprefix("file://").startswith("/"):
            raise invalid(f"{name} {value!r} is not an absolute path")
        result[name] = value
    return result


def json_object(value: AnyValue | None, what: str) -> Mapping[str, object]:
    """The JSON in one of containerd's Any values. INVALID_ARGUMENT: it is not a JSON object."""
    if value is None:
        raise invalid(f"{what} is required")
    try:
        found = jsontext.loads(value.value)
    except ValueError as error:
        raise invalid(f"malformed {what}: {error}") from None
    if not isinstance(found, dict):
        raise invalid(f"malformed {what}: not an object")
    return found


def prefixed(error: WharfError, before: str) -> WharfError:
    """The same kind, with containerd's prefix."""
    return error.worded(f"{before}: {error.message}")
