"""``docker checkpoint``: CRIU images of a running container, and a start from them.

A checkpoint is a directory in the container's ``checkpoints`` directory, or in one that the request names. The runtime
writes and reads it with CRIU (Debian's ``criu``, for crun also ``libcriu2``); the engine passes the path on.
"""

import asyncio
import contextlib
import os
import shutil
from typing import Any

from engine.api.pb import runc_options_pb2
from engine.api.types import AnyValue
from engine.common.errors import WharfError, internal, invalid, not_implemented
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.stop import is_restarting, not_running
from server.containers.stdio.stdio import task_owner
from server.containers.stdio_backend import Embedded
from server.containers.values import names, signals


def check_enabled(context: ContainerContext) -> None:
    """:raises WharfError: NOT_IMPLEMENTED, as with dockerd: the daemon isn't experimental."""
    if not context.config.experimental:
        raise not_implemented(
            "This experimental feature is disabled by default. "
            "Start the Docker daemon in experimental mode in order to enable it."
        )


def _path(container: Container, directory: str, name: str) -> str:
    return os.path.join(directory or f"{container.directory}/checkpoints", name)


def _existing(container: Container, directory: str, name: str, key: str) -> str:
    """The path of an existing checkpoint.

    :raises WharfError: INTERNAL, as in dockerd: there is no such checkpoint.
    """
    path = _path(container, directory, name)
    if not os.path.isdir(path):
        if os.path.lexists(path):
            raise internal(f"{path} exists and is not a directory")
        raise internal(f"checkpoint {name} does not exist for container {key}")
    return path


async def create(
    context: ContainerContext, container: Container, key: str, name: str, directory: str, *, leave: bool
) -> None:
    """Writes a checkpoint, and kills the container unless ``leave``. ``directory`` "": the container's own. ``key``:
    the container's name or id in the request.

    :raises WharfError: CONFLICT: the container doesn't run; INTERNAL: a bad or used name, or CRIU's error.
    """
    state = container.state
    if not state.running:
        raise not_running(container)
    if state.restarting:
        raise is_restarting(container)
    if not names.is_valid(name):
        raise internal(f"Invalid checkpoint ID ({name}), only {names.ALLOWED} are allowed")
    path = _path(container, directory, name)
    try:
        os.makedirs(path, mode=0o700)
    except FileExistsError:
        raise internal(
            f"cannot checkpoint container {key}: checkpoint with name {name} already exists for container {key}"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise internal(f"cannot checkpoint container {key}: {error.filename}: {reason}") from None
    async with container.lock:
        try:
            await _write(context, container, path, leave=leave or not state.running)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))
            if isinstance(error, WharfError):
                raise internal(f"Cannot checkpoint container {key}: {error.message}") from error
            raise
    context.publish(container, "checkpoint")


async def _write(context: ContainerContext, container: Container, path: str, *, leave: bool) -> None:
    """Writes the images with the runtime, and kills the container unless ``leave``.

    CRIU could kill the container itself, but crun then deletes its record of the container, and a stock containerd
    can't delete the task.
    """
    tasks = context.engine.tasks
    # work_path has CRIU's log: crun doesn't make the directory that containerd would choose.
    options = runc_options_pb2.CheckpointOptions(image_path=path, work_path=path)
    if leave:
        await tasks.checkpoint(container.id, options=options)
        return
    frozen = container.state.paused
    if not frozen:
        await tasks.pause(container.id)
    try:
        await tasks.checkpoint(container.id, options=options)
        # Kill the processes while they are frozen: after the checkpoint none may run, as the restored ones repeat
        # what it does.
        await tasks.kill(container.id, signals.SIGKILL, everything=True)
        frozen = False
    finally:
        if not frozen:
            # A frozen process gets the signal when it thaws. An error is expected: runc's kill thaws it already.
            with contextlib.suppress(WharfError):
                await tasks.resume(container.id)


def listing(container: Container, directory: str, key: str) -> list[dict[str, Any]] | None:
    """The checkpoints by name; None: there are none (dockerd's ``null``).

    :raises WharfError: INTERNAL: ``directory`` doesn't exist.
    """
    if directory:
        _existing(container, directory, "", key)
    found: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):
        path = _path(container, directory, "")
        found = [{"Name": name} for name in sorted(os.listdir(path)) if os.path.isdir(f"{path}/{name}")]
    return found or None


async def remove(container: Container, name: str, directory: str, key: str) -> None:
    """Removes a checkpoint.

    :raises WharfError: INTERNAL, as in dockerd: there is no such checkpoint.
    """
    if not names.is_valid(name):
        raise internal(f"checkpoint {name} does not exist for container {key}")
    await asyncio.to_thread(shutil.rmtree, _existing(container, directory, name, key))


def find_path(context: ContainerContext, container: Container, name: str, directory: str) -> str:
    """The path of the checkpoint from which a start restores the container; ``""`` if ``name`` is empty.

    :raises WharfError: INVALID_ARGUMENT: the daemon isn't experimental, or this host can't restore the container;
        INTERNAL: there is no such checkpoint.
    """
    if not name:
        return ""
    if not context.config.experimental:
        raise invalid("checkpoint is only supported in experimental mode")
    if not names.is_valid(name):
        raise internal(f"checkpoint {name} does not exist for container /{container.name}")
    found = _existing(container, directory, name, f"/{container.name}")
    program = context.runtimes.get(container.host_config.runtime).path
    if os.path.basename(program) == "crun" and not isinstance(context.stdio, Embedded):
        # containerd's shim passes an option of runc that crun doesn't have.
        raise invalid("a stock containerd cannot restore with crun: create the container with --runtime runc")
    return found


def runtime_options(context: ContainerContext, container: Container, path: str) -> AnyValue | None:
    """The runtime's options for a task that is restored from the checkpoint at ``path``. None: ``path`` is empty, so
    the options of the engine's record apply."""
    if not path:
        return None
    _, plain = context.runtimes.engine_options(container.host_config.runtime, owner=task_owner(context, container))
    options = plain.unpack(runc_options_pb2.Options) if plain is not None else runc_options_pb2.Options()
    options.criu_image_path = options.criu_work_path = path
    return AnyValue.pack(options)
