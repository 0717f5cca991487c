"""User namespaces and id mapping: creates namespaces, maps the owners of a mount's files, creates files as another id.

A mount can map every file's owner (``mount_setattr(2)``, ``MOUNT_ATTR_IDMAP``): a file of the container's root on disk
then belongs, through that mount, to the host user to whom the namespace maps that root.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.common import timeouts
from engine.common.ids import IdMaps
from engine.common.system import linux
from engine.common.system.credentials import set_filesystem_ids
from engine.common.system.run import DEFAULT_ENV


def user_namespace(maps: IdMaps) -> int:
    """A new user namespace with these maps; returns a descriptor, which keeps it alive. Blocks for some milliseconds.

    A process with threads can't create one, so a helper program does.

    :raises OSError: the kernel refuses the namespace or the maps.
    """
    with _inside(["unshare", "--user"]) as pid:
        for name, mappings in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write("".join(f"{item.container_id} {item.host_id} {item.size}\n" for item in mappings))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def network_namespace(owner: str) -> Iterator[str]:
    """The path of a new network namespace that the user namespace at ``owner`` owns: its root has all capabilities
    there.

    The path refers to the namespace only inside the block. Blocks for some milliseconds.
    """
    with _inside(["nsenter", f"--user={owner}", "unshare", "--net"]) as pid:
        yield f"/proc/{pid}/ns/net"


@contextmanager
def _inside(argv: Sequence[str]) -> Iterator[int]:
    """The pid of a process that has run ``argv`` and waits for the end of the block."""
    with subprocess.Popen(
        [*argv, "sh", "-c", "echo; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(DEFAULT_ENV),
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            if not process.stdout.readline():
                message = process.stderr.read().decode(errors="replace").strip()
                raise OSError(1, message or "the namespace could not be created", argv[0])
            yield process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(timeouts.seconds("program.run"))
            except subprocess.TimeoutExpired:
                process.kill()


def mount_mapped(directory: str, place: str, user_namespace: int) -> None:
    """Mounts ``directory`` at ``place`` with mapped owners, without the mounts below it.

    :raises OSError: EINVAL: the file system or the kernel (before 5.12) can't map ids.
    """
    tree = linux.open_tree(linux.AT_FDCWD, directory, linux.OPEN_TREE_CLONE)
    try:
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, attr_set=linux.MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
        # Mounts in one of the two must not propagate to the other.
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, propagation=linux.MS_PRIVATE)
        linux.move_mount(tree, "", linux.AT_FDCWD, place, linux.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


@contextmanager
def filesystem_ids(uid: int, gid: int) -> Iterator[None]:
    """This *thread* creates files as another user, with all its privileges (``setfsuid(2)``).

    Root itself is not mapped on an idmapped mount, so that it can't create files there (EOVERFLOW).
    """
    set_filesystem_ids(uid, gid)
    try:
        yield
    finally:
        set_filesystem_ids(0, 0)
