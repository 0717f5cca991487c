"""A request, the host's properties and the container's files for the tests of specs."""

from dataclasses import replace
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from engine.common.system.cgroups import CgroupLayout
from server.containers.spec.host import HostFacts
from server.containers.spec.input import BindMount, Namespaces, SpecInput

V1 = CgroupLayout("hybrid", frozenset(("cpu", "memory")))
V2 = CgroupLayout("v2", frozenset(("cpu", "memory")))
HOST = HostFacts(kernel=(6, 18), arch="amd64", cgroups=V1, init_path="/usr/bin/docker-init")

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
# a comment
www:x:33:33::/:/bin/sh
"""
GROUP = b"root:x:0:\ndaemon:x:1:www\nwww:x:33:\nextra:x:77:www\n"


class Files:
    """The container's passwd and group files in memory."""

    def __init__(self, passwd: bytes | None = PASSWD, group: bytes | None = GROUP) -> None:
        self.content = {"/etc/passwd": passwd, "/etc/group": group}

    def read(self, path: str) -> bytes | None:
        return self.content[path]


def etc(*, writable: bool = True) -> tuple[BindMount, ...]:
    return tuple(
        BindMount(f"/data/c/{name}", f"/etc/{name}", writable=writable, propagation="rprivate")
        for name in ("resolv.conf", "hostname", "hosts")
    )


BASE = SpecInput(
    id="ID",
    rootfs="/rootfs",
    args=("sleep", "100"),
    config=ContainerConfig(env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)),
    host=HostConfig(shm_size=64 << 20),
    files=Files(),
    hostname="hostname",
    mounts=etc(),
    namespaces=Namespaces(cgroup="host"),
    cgroups_path="/wharf/ID",
)


def with_host(inp: SpecInput, **changes: Any) -> SpecInput:
    """``inp`` with other fields of its HostConfig."""
    return replace(inp, host=replace(inp.host, **changes))
