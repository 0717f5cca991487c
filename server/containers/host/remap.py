"""Root file systems for containers with mapped ids (``userns-remap``).

Every layer on disk has the container's own ids: images, containers' changes, commits. Only the mount that a container
gets maps them to the host's ids, so that nothing is copied or changed, and code that reads layers (diff, commit,
export, the builder) doesn't depend on the mapping. The kernel and the file system must support idmapped layers of
overlayfs: Linux 5.19, and ext4, xfs, btrfs or the like.
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
    """The mapping of one daemon. ``userns`` is the path of the user namespace that its containers share.

    :param directory: a directory for the mounts; mounts that an earlier daemon left there are removed.
    :param root: the data root, whose files are mapped.
    :raises WharfError: UNAVAILABLE: this host can't map ids.
    """

    def __init__(self, maps: IdMaps, directory: str, root: str) -> None:
        self.maps = maps
        self._directory = directory
        self._root = os.path.realpath(root)
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()
        mounts.unmount_under(directory)
        private.restrict_directory(directory, 0o710, group=maps.root[1])
        self.userns = f"{directory}/user"
        self._namespace = -1
        try:
            self._namespace = idmap.user_namespace(maps)
            os.close(os.open(self.userns, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            linux.mount(f"/proc/self/fd/{self._namespace}", self.userns, None, linux.MS_BIND)
            self._tree(self._root)
        except OSError as error:
            self.close()
            reason = (error.strerror or str(error)).lower()
            raise WharfError(Kind.UNAVAILABLE, f"userns-remap: ids can't be mapped on {root}: {reason}") from error

    def close(self) -> None:
        """Removes the mounts. Running containers keep theirs."""
        mounts.unmount_under(self._directory)
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the containers' root."""
        return self.maps.root

    def as_container_root(self) -> contextlib.AbstractContextManager[None]:
        """This thread creates files as the containers' root: for mounting, and for writing through a mapped mount."""
        return idmap.filesystem_ids(*self.root)

    def path(self, path: str) -> str:
        """The path at which a file or directory of the engine has the host's ids."""
        real = os.path.realpath(path)
        inside = real == self._root or real.startswith(self._root + "/")
        # A stock containerd has its snapshots elsewhere: <base>/<number>/fs.
        base = self._root if inside else os.path.dirname(os.path.dirname(real))
        return self._tree(base) + real.removeprefix(base)

    def _tree(self, base: str) -> str:
        if (known := self._places.get(base)) is not None:
            return known  # no lock, which is held during a mount: the event loop calls this
        with self._lock:
            place = self._places.get(base)
            if place is None:
                place = f"{self._directory}/{len(self._places)}"
                private.make_directory(place, private.PASSABLE)
                idmap.mount_mapped(base, place, self._namespace)
                self._places[base] = place
            return place

    def map_mounts(self, rootfs: Sequence[Mount]) -> tuple[Mount, ...]:
        """A snapshot's mounts with the host's ids. Mount an overlay inside ``as_container_root``."""
        return tuple(self._map_mount(mount) for mount in rootfs)

    def _map_mount(self, mount: Mount) -> Mount:
        if mount.type != "overlay":
            return replace(mount, source=self.path(mount.source))
        options = []
        for option in mount.options:
            key, found, value = option.partition("=")
            if key in _LAYERS:
                # overlayfs requires upperdir and workdir on one mount, as they are here.
                option = key + found + ":".join(map(self.path, value.split(":")))
            options.append(option)
        return replace(mount, options=tuple(options))


@contextmanager
def as_container_root(remap: Remap | None) -> Iterator[None]:
    """``remap.as_container_root`` if ids are mapped."""
    if remap is None:
        yield
        return
    with remap.as_container_root():
        yield
