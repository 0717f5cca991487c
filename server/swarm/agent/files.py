"""The secrets and configs of tasks as files: on a tmpfs of the task below the exec root, never on a disk.

The container service mounts each file read-only into the container (``Container.private_binds``). The files outlive the
daemon, as the containers do, and are removed when the task has ended.
"""

import asyncio
import contextlib
import errno
import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from api_models.swarm.container import ContainerSpec
from api_models.swarm.node import NodeDescription
from api_models.swarm.secret import FileTarget
from engine.common.errors import internal, invalid
from engine.common.system import linux, mounts, private
from server.containers.host.remap import Remap
from server.swarm.agent.dispatcher import Dispatcher, Payload
from server.swarm.agent.template import Targets, expand, expand_payload
from server.swarm.model.objects import Task

SECRETS = "/run/secrets"
CONFIGS = "/"
#: Bytes of the tmpfs beside the data: the blocks that are not full.
_BLOCK = 4096


@dataclass(frozen=True, slots=True, repr=False)
class PrivateFile:
    """A file of a task. ``target``: its path in the container; ``uid`` and ``gid``: the container's."""

    target: str
    uid: int
    gid: int
    mode: int
    data: bytes = field(repr=False)


async def payloads(task: Task, node: NodeDescription, dispatcher: Dispatcher) -> list[PrivateFile]:
    """Gets the data of a task's secrets and configs, and evaluates those that are templates.

    :raises WharfError: UNAVAILABLE: no manager answers; else the reason why the task can't run.
    """
    spec = task.spec.container_spec or ContainerSpec()
    secrets = [(each.secret_id, each.file) for each in spec.secrets or () if each.file is not None]
    configs = [(each.config_id, each.file) for each in spec.configs or () if each.file is not None]
    if not secrets and not configs:
        return []
    secret_data = {id: await dispatcher.secret(id) for id, _ in secrets}
    config_data = {id: await dispatcher.config(id) for id, _ in configs}
    targets = Targets(
        secrets={file.name: secret_data[id].data for id, file in secrets},
        configs={file.name: config_data[id].data for id, file in configs},
        env=dict(entry.split("=", 1) for entry in expand(spec, task, node).env or () if "=" in entry),
    )

    def made(kind: str, below: str, id: str, file: FileTarget, payload: Payload) -> PrivateFile:
        data = payload.data
        if payload.template:
            data = expand_payload(data, task, node, targets, f"{kind} {id}")
        return PrivateFile(
            posixpath.normpath(posixpath.join(below, file.name)), _id(file.uid), _id(file.gid), file.mode & 0o777, data
        )

    return [
        *(made("secret", SECRETS, id, file, secret_data[id]) for id, file in secrets),
        *(made("config", CONFIGS, id, file, config_data[id]) for id, file in configs),
    ]


def _id(text: str) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise invalid(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


class PrivateFiles:
    """The files of all tasks of this node. ``remap``: the mapping of the containers' user ids."""

    def __init__(self, exec_root: Path, remap: Remap | None = None) -> None:
        self._root = f"{exec_root}/swarm/tasks"
        self._remap = remap

    async def write(self, task_id: str, files: Sequence[PrivateFile]) -> Mapping[str, str]:
        """Writes the files of a task; returns their paths on the host by those in the container. Replaces the files of
        an earlier call.

        :raises WharfError: INTERNAL.
        """
        if not files:
            return {}
        try:
            return await asyncio.to_thread(self._write, task_id, files)
        except (OSError, ValueError) as error:
            await self.remove(task_id)
            reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
            raise internal(f"error setting up the files of secrets and configs: {reason}") from None

    async def remove(self, task_id: str) -> None:
        """Removes the files of a task. Idempotent. Processes that have them open keep them."""
        await asyncio.to_thread(_remove, f"{self._root}/{task_id}")

    async def sweep(self, known: Collection[str]) -> None:
        """Removes the files of all tasks whose ids are not in ``known``."""
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(self._root)) - set(known):
                await self.remove(name)

    def _write(self, task_id: str, files: Sequence[PrivateFile]) -> dict[str, str]:
        directory = f"{self._root}/{task_id}"
        # The runtime opens the files as the root of the containers.
        mode, group = (0o700, 0) if self._remap is None else (0o710, self._remap.root[1])
        private.restrict_directory(self._root, mode, group=group)
        _remove(directory)
        os.mkdir(directory, 0o700)
        size = sum(len(file.data) + _BLOCK for file in files) + _BLOCK * 4
        _mount(directory, f"mode={mode:o},gid={group},size={size}")
        found = {}
        for number, file in enumerate(files):
            path = f"{directory}/{number}"
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(file.data)
                owner = (file.uid, file.gid)
                os.fchown(fd, *(owner if self._remap is None else self._remap.maps.to_host(*owner)))
                os.fchmod(fd, file.mode)
            found[file.target] = path
        return found


def _mount(path: str, options: str) -> None:
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    try:
        # Not written to a swap device. Linux 6.4.
        linux.mount("tmpfs", path, "tmpfs", flags, f"{options},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        linux.mount("tmpfs", path, "tmpfs", flags, options)


def _remove(path: str) -> None:
    if not os.path.lexists(path):
        return
    mounts.unmount_under(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
