"""Root file systems of containers with mapped user ids: of all (``userns-remap``), or of one owner (``owners.py``).

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
    """One mapping. ``userns``: the path of the user namespace of its containers, which exists after ``open``.

    :param directory: for the mounts; mounts of an earlier daemon in it are removed.
    :param root: the data root; its files are mapped.
    :param private: only the host's root may enter ``directory``, not the containers' root.
    """

    def __init__(self, maps: IdMaps, directory: str, root: str, *, private: bool = False) -> None:
        self.maps = maps
        self._private = private
        self._directory = directory
        self._root = os.path.realpath(root)
        # Directory → the path of its idmapped mount.
        self._mountpoints: dict[str, str] = {}
        self._lock = threading.RLock()
        self.userns = f"{directory}/user"
        self._namespace = -1

    @property
    def opened(self) -> bool:
        return self._namespace >= 0

    def open(self) -> None:
        """Makes the user namespace and the mount of the data root, unless they exist. The first call blocks.

        :raises WharfError: UNAVAILABLE: this host can't map ids.
        """
        if self._namespace >= 0:
            return
        with self._lock:
            if self._namespace < 0:
                self._open()

    def _open(self) -> None:
        mounts.unmount_under(self._directory)
        if self._private:
            private.restrict_directory(os.path.dirname(self._directory))
            private.restrict_directory(self._directory)
        else:
            private.restrict_directory(self._directory, 0o710, group=self.maps.root[1])
        namespace = -1
        try:
            namespace = idmap.user_namespace(self.maps)
            os.close(os.open(self.userns, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            linux.mount(f"/proc/self/fd/{namespace}", self.userns, None, linux.MS_BIND)
            self._mount(self._root, namespace)
        except OSError as error:
            mounts.unmount_under(self._directory)
            self._mountpoints.clear()
            if namespace >= 0:
                os.close(namespace)
            reason = (error.strerror or str(error)).lower()
            text = f"userns-remap: ids can't be mapped on {self._root}: {reason}"
            raise WharfError(Kind.UNAVAILABLE, text) from error
        self._namespace = namespace

    def close(self) -> None:
        """Undoes ``open``; running containers have mounts of their own."""
        if self._namespace >= 0:
            mounts.unmount_under(self._directory)
            os.close(self._namespace)
            self._namespace = -1
            self._mountpoints.clear()

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
            self.open()
            return self._mountpoints.get(base) or self._mount(base, self._namespace)

    def _mount(self, base: str, namespace: int) -> str:
        mountpoint = f"{self._directory}/{len(self._mountpoints)}"
        private.make_directory(mountpoint, private.PASSABLE)
        idmap.mount_mapped(base, mountpoint, namespace)
        self._mountpoints[base] = mountpoint
        return mountpoint

    def map_tree(self, tree: int) -> None:
        """Maps the owners of a detached mount (``open_tree``). Blocks at the first use of the mapping.

        :raises OSError: EINVAL: its file system can't map ids.
        """
        self.open()
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, attr_set=linux.MOUNT_ATTR_IDMAP, userns_fd=self._namespace)

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
