"""A task's bundle: the directory in the supervisor's state with the files of the runtime, the shim and a restarted
supervisor.

``<state>/tasks/<namespace>/<id>/``: ``config.json`` is the OCI spec, ``task.json`` the request that created the task,
``rootfs/`` the mounted root file system; ``shim.sock`` and ``state.json`` are the shim's.
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
        """Creates the bundle; FileExistsError if it exists. Only root can read it, as the spec may contain secrets."""
        private.make_directory(os.path.dirname(self.path), private.PASSABLE)
        os.mkdir(self.path, 0o700)
        group = _root_group(config)
        if group is not None:
            # The container's root, which is not the host's, must reach its file system.
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
        """The arguments of ``make``. OSError, ValueError: the bundle is incomplete."""
        return self._read(_TASK)

    def shim_state(self) -> dict[str, object]:
        """The shim's last record; empty if it wrote none."""
        try:
            return self._read(STATE)
        except (OSError, ValueError):
            return {}

    def write_shim_state(self, state: Mapping[str, object]) -> None:
        """Writes the record for a shim that has died."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, STATE + ".new"))
        self._write(STATE + ".new", json.dumps(state).encode())
        os.rename(os.path.join(self.path, STATE + ".new"), os.path.join(self.path, STATE))

    def _read(self, name: str) -> dict[str, object]:
        with open(os.path.join(self.path, name)) as file:
            data = json.load(file)
        if not isinstance(data, dict):
            raise ValueError(f"{name} is not an object")
        return data

    def remove(self) -> None:
        """Unmounts the root file system and removes everything. Blocks."""
        mounts.unmount_under(self.rootfs)
        # Never delete through a remaining mount: rmdir refuses a mount point and a non-empty directory.
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.rootfs)
        shutil.rmtree(self.path, ignore_errors=True)


def _root_group(config: bytes) -> int | None:
    """The host's group of the container's root, if its ids are mapped."""
    if b'"gidMappings"' not in config:  # usually: skip parsing the spec
        return None
    mappings = json.loads(config).get("linux", {}).get("gidMappings") or ()
    return next((int(item["hostID"]) for item in mappings if item.get("containerID") == 0), None)


def bundles(state: str) -> Iterator[tuple[str, str, Bundle]]:
    """(namespace, container id, bundle) of all existing bundles."""
    root = os.path.join(state, "tasks")
    with contextlib.suppress(FileNotFoundError):
        for namespace in sorted(os.listdir(root)):
            for identity in sorted(os.listdir(os.path.join(root, namespace))):
                yield namespace, identity, Bundle(os.path.join(root, namespace, identity))


def bundle_of(state: str, namespace: str, identity: str) -> Bundle:
    return Bundle(os.path.join(state, "tasks", namespace, identity))
