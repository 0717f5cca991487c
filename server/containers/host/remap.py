"""Root file systems of containers with mapped user ids (``userns-remap``).

All layers on disk (images, containers, commits) have the ids inside the container; idmapped mounts translate them to
the host's ids. So no file is copied or changed, and code that reads layers (diff, commit, export, the builder) doesn't
depend on the mapping. It needs a kernel and a file system that support idmapped layers of overlayfs: Linux 5.19 with
ext4, xfs, btrfs or others.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from engine.common.ids import IdMaps
from engine.common.system import idmap, linux, mounts, private

_LAYERS = ("lowerdir", "upperdir", "workdir")


class Remap:
    """The mapping of one daemon. ``userns``: the path of the user namespace of its containers.

    :param directory: for the mounts; mounts of an earlier daemon in it are removed.
    :param root: the data root; its files are mapped.
    :raises WharfError: UNAVAILABLE: this host can't map ids.
    """

    def __init__(self, maps: IdMaps, directory: str, root: str) -> None:
        self.maps = maps
        self._directory = directory
        self._root = os.path.realpath(root)
        # Directory → the path of its idmapped mount.
        self._mountpoints: dict[str, str] = {}
        self._lock = threading.Lock()
        mounts.unmount_under(directory)
        private.restrict_directory(directory, 0o710, group=maps.root[1])
        self.userns = f"{directory}/user"
        self._namespace = -1
        try:
            self._namespace = idmap.user_namespace(maps)
            os.close(os.open(self.userns, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            linux.mount(f"/proc/self/fd/{self._namespace}", self.userns, None, linux.MS_BIND)
            self._mapped(self._root)
        except OSError as error:
            self.close()
            reason = (error.strerror or str(error)).lower()
            raise WharfError(Kind.UNAVAILABLE, f"userns-remap: ids can't be mapped on {root}: {reason}") from error

    def close(self) -> None:
        """Removes the mounts on the host; running containers have mounts of their own."""
        mounts.unmount_under(self._directory)
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the containers' root."""
        return self.maps.root

    def as_container_root(self) -> contextlib.AbstractContextManager[None]:
        """In the block the calling thread makes files as the containers' root: for mounting an overlay, and for writing
        through an idmapped mount."""
        return idmap.filesystem_ids(*self.root)

    def path(self, path: str) -> str:
        """The path of a file or directory of the engine below an idmapped mount. May mount, which blocks."""
        real = os.path.realpath(path)
        inside = real == self._root or real.startswith(self._root + "/")
        # The snapshots of a stock containerd are outside the data root, in <base>/<number>/fs.
        base = self._root if inside else os.path.dirname(os.path.dirname(real))
        return self._mapped(base) + real.removeprefix(base)

    def _mapped(self, base: str) -> str:
        """The path of the idmapped mount of ``base``, which is mounted at the first call."""
        if (known := self._mountpoints.get(base)) is not None:
            return known  # without the lock: the event loop calls this, and a thread that mounts holds the lock
        with self._lock:
            mountpoint = self._mountpoints.get(base)
            if mountpoint is None:
                mountpoint = f"{self._directory}/{len(self._mountpoints)}"
                private.make_directory(mountpoint, private.PASSABLE)
                idmap.mount_mapped(base, mountpoint, self._namespace)
                self._mountpoints[base] = mountpoint
            return mountpoint

    def map_mounts(self, rootfs: Sequence[Mount]) -> tuple[Mount, ...]:
        """A snapshot's mounts with paths below idmapped mounts. Mount an overlay inside ``as_container_root``."""
        return tuple(self._map_mount(mount) for mount in rootfs)

    def _map_mount(self, mount: Mount) -> Mount:
        if mount.type != "overlay":
            return replace(mount, source=self.path(mount.source))
        options = []
        for option in mount.options:
            key, found, value = option.partition("=")
            if key in _LAYERS:
                # overlayfs requires upperdir and workdir on one mount: both have the same base.
                option = key + found + ":".join(map(self.path, value.split(":")))
            options.append(option)
        return replace(mount, options=tuple(options))


@contextmanager
def as_container_root(remap: Remap | None) -> Iterator[None]:
    """``remap.as_container_root``; does nothing without a mapping."""
    if remap is None:
        yield
        return
    with remap.as_container_root():
        yield
