"""``docker checkpoint``: CRIU's images of a running container, and a start from them.

A checkpoint is a directory, below the container's own or below one that the request names. The runtime writes it and
reads it back, with Debian's ``criu`` (and, for crun, ``libcriu2``); the engine only passes the path on.
"""

import asyncio
import contextlib
import os
import re
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
from server.containers.values import signals
from server.containers.values.names import ALLOWED

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def check_enabled(context: ContainerContext) -> None:
    """:raises WharfError: NOT_IMPLEMENTED unless the daemon is an experimental one, as with dockerd."""
    if not context.settings.experimental:
        raise not_implemented(
            "This experimental feature is disabled by default. "
            "Start the Docker daemon in experimental mode in order to enable it."
        )


def _place(container: Container, directory: str, name: str) -> str:
    return os.path.join(directory or f"{container.directory}/checkpoints", name)


def _existing(container: Container, directory: str, name: str, key: str) -> str:
    """:raises WharfError: INTERNAL (as in dockerd): there is no such checkpoint."""
    place = _place(container, directory, name)
    if not os.path.isdir(place):
        if os.path.lexists(place):
            raise internal(f"{place} exists and is not a directory")
        raise internal(f"checkpoint {name} does not exist for container {key}")
    return place


async def create(
    context: ContainerContext, container: Container, key: str, name: str, directory: str, *, leave: bool
) -> None:
    """Writes a checkpoint; unless ``leave`` the container ends with it. ``key``: how the client calls it.

    :raises WharfError: CONFLICT if it doesn't run; INTERNAL: the name, or CRIU's failure.
    """
    state = container.state
    if not state.running:
        raise not_running(container)
    if state.restarting:
        raise is_restarting(container)
    if _NAME.fullmatch(name) is None:
        raise internal(f"Invalid checkpoint ID ({name}), only {ALLOWED} are allowed")
    place = _place(container, directory, name)
    try:
        os.makedirs(place, mode=0o700)
    except FileExistsError:
        raise internal(
            f"cannot checkpoint container {key}: checkpoint with name {name} already exists for container {key}"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise internal(f"cannot checkpoint container {key}: {error.filename}: {reason}") from None
    async with container.lock:
        try:
            await _write(context, container, place, leave=leave or not state.running)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
            if isinstance(error, WharfError):
                raise internal(f"Cannot checkpoint container {key}: {error.message}") from error
            raise
    context.publish(container, "checkpoint")


async def _write(context: ContainerContext, container: Container, place: str, *, leave: bool) -> None:
    """Has the runtime write the images. The end is our own, of a frozen container: crun forgets a container that CRIU
    ends, and then a stock containerd cannot delete its task."""
    tasks = context.engine.tasks
    # CRIU's log goes there, too: crun does not make the directory that containerd would name.
    options = runc_options_pb2.CheckpointOptions(image_path=place, work_path=place)
    if leave:
        await tasks.checkpoint(container.id, options=options)
        return
    frozen = container.state.paused
    if not frozen:
        await tasks.pause(container.id)
    try:
        await tasks.checkpoint(container.id, options=options)
        # All of them while they are frozen: one that goes on until its init has died would do once more what the
        # restored one does.
        await tasks.kill(container.id, signals.SIGKILL, everything=True)
        frozen = False
    finally:
        if not frozen:
            # After the kill this lets the signal arrive; runc has done it then.
            with contextlib.suppress(WharfError):
                await tasks.resume(container.id)


def listing(container: Container, directory: str, key: str) -> list[dict[str, Any]] | None:
    """The checkpoints by name; None where dockerd says ``null``.

    :raises WharfError: INTERNAL: the directory that was named isn't there.
    """
    if directory:
        _existing(container, directory, "", key)
    found: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):
        place = _place(container, directory, "")
        found = [{"Name": name} for name in sorted(os.listdir(place)) if os.path.isdir(f"{place}/{name}")]
    return found or None


async def remove(container: Container, name: str, directory: str, key: str) -> None:
    """:raises WharfError: INTERNAL (as in dockerd): there is no such checkpoint."""
    if _NAME.fullmatch(name) is None:
        raise internal(f"checkpoint {name} does not exist for container {key}")
    await asyncio.to_thread(shutil.rmtree, _existing(container, directory, name, key))


def to_restore(context: ContainerContext, container: Container, name: str, directory: str) -> str:
    """The directory that a start is asked to begin from; ``""`` without a name.

    :raises WharfError: INVALID_ARGUMENT unless experimental; INTERNAL: there is no such checkpoint.
    """
    if not name:
        return ""
    if not context.settings.experimental:
        raise invalid("checkpoint is only supported in experimental mode")
    if _NAME.fullmatch(name) is None:
        raise internal(f"checkpoint {name} does not exist for container /{container.name}")
    found = _existing(container, directory, name, f"/{container.name}")
    program = context.runtimes.get(container.host_config.runtime).path
    if os.path.basename(program) == "crun" and not isinstance(context.stdio, Embedded):
        # Its shim calls the runtime with an option of runc's that crun does not have.
        raise invalid("a stock containerd cannot restore with crun: create the container with --runtime runc")
    return found


def options(context: ContainerContext, container: Container, image: str) -> AnyValue | None:
    """The runtime's options for a task that is restored; None: those of the container's record will do."""
    if not image:
        return None
    _, plain = context.runtimes.engine_options(container.host_config.runtime, owner=task_owner(context, container))
    wanted = plain.unpack(runc_options_pb2.Options) if plain is not None else runc_options_pb2.Options()
    wanted.criu_image_path = wanted.criu_work_path = image
    return AnyValue.pack(wanted)
