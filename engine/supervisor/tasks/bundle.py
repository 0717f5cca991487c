"""A task's bundle: the directory in the supervisor's state that holds what the runtime and the shim need, and what
a supervisor that was started again must know.

``<state>/tasks/<namespace>/<id>/``: ``config.json`` the OCI spec, ``task.json`` what the task was created with,
``rootfs/`` the mounted root file system, ``shim.sock`` and ``state.json`` the shim's.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.common.system import mounts, private
from engine.shim.shim import SOCKET, STATE

_TASK = "task.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    path: str

    @property
    def rootfs(self) -> str:
        return os.path.join(self.path, "rootfs")

    @property
    def shim_socket(self) -> str:
        return os.path.join(self.path, SOCKET)

    def make(self, config: bytes, task: Mapping[str, object]) -> None:
        """FileExistsError: there is one. The spec may hold secrets, so only root gets in, and nobody else can list."""
        private.make_directory(os.path.dirname(self.path), private.PASSABLE)
        os.mkdir(self.path, 0o700)
        group = _root_group(config)
        if group is not None:
            # Its root, who is not the host's, has to come to its file system.
            os.chown(self.path, 0, group)
            os.chmod(self.path, 0o710)
        os.mkdir(self.rootfs, 0o711)
        self._write("config.json", config)
        self._write(_TASK, json.dumps(task).encode())

    def _write(self, name: str, data: bytes) -> None:
        fd = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)

    def task(self) -> dict[str, object]:
        """What ``make`` got. OSError, ValueError: the bundle was never finished."""
        return self._read(_TASK)

    def shim_state(self) -> dict[str, object]:
        """What the shim wrote last; empty when it wrote nothing."""
        try:
            return self._read(STATE)
        except (OSError, ValueError):
            return {}

    def write_shim_state(self, state: Mapping[str, object]) -> None:
        """In place of a shim that is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, STATE + ".new"))
        self._write(STATE + ".new", json.dumps(state).encode())
        os.rename(os.path.join(self.path, STATE + ".new"), os.path.join(self.path, STATE))

    def _read(self, name: str) -> dict[str, object]:
        with open(os.path.join(self.path, name)) as file:
            data = json.load(file)
        if not isinstance(data, dict):
            raise ValueError(f"{name} is no object")
        return data

    def remove(self) -> None:
        """Unmounts the root file system and removes everything. Blocks."""
        mounts.unmount_under(self.rootfs)
        # Never through a mount that stayed: rmdir refuses a mount point and a directory that isn't empty.
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.rootfs)
        shutil.rmtree(self.path, ignore_errors=True)


def _root_group(config: bytes) -> int | None:
    """The host's group of the container's root, where its ids are mapped."""
    if b'"gidMappings"' not in config:  # mostly: the spec is not parsed for nothing
        return None
    mappings = json.loads(config).get("linux", {}).get("gidMappings") or ()
    return next((int(item["hostID"]) for item in mappings if item.get("containerID") == 0), None)


def bundles(state: str) -> Iterator[tuple[str, str, Bundle]]:
    """(namespace, container id, bundle) of all that exist."""
    root = os.path.join(state, "tasks")
    with contextlib.suppress(FileNotFoundError):
        for namespace in sorted(os.listdir(root)):
            for identity in sorted(os.listdir(os.path.join(root, namespace))):
                yield namespace, identity, Bundle(os.path.join(root, namespace, identity))


def bundle_of(state: str, namespace: str, identity: str) -> Bundle:
    return Bundle(os.path.join(state, "tasks", namespace, identity))
