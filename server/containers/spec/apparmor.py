"""AppArmor: whether the host uses it, and the profile ``docker-default`` of containers.

A runtime refuses to start a process with a profile that isn't loaded. So the daemon loads Docker's default profile at
its start; if it can't (no ``apparmor_parser``, no securityfs), containers run without a profile.
"""

import logging
import os
import shutil

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system.run import DEFAULT_ENV, run_sync
from server.containers.spec.process import DOCKER_APPARMOR as DEFAULT

log = logging.getLogger(__name__)

_SECURITYFS = "/sys/kernel/security/apparmor/profiles"
_ENABLED = "/sys/module/apparmor/parameters/enabled"

# Denies, regardless of capabilities: changes of kernel settings in procfs and sysfs, mounts, and ptrace of processes
# outside. Settings of the container's own namespaces stay writable (kernel.sem, kernel.shm*).
_PROFILE = f"""
profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,
  unix,
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer={DEFAULT},
  ptrace (trace, read, tracedby, readby) peer={DEFAULT},
  deny mount,
  deny /proc/* w,
  deny /proc/[^1-9s]*/** w,
  deny /proc/scsi/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{{?,??,[^s]**,s[^eh]**}} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}}
"""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def in_kernel() -> bool:
    """Whether AppArmor is enabled; False inside a container of another container manager."""
    return _read(_ENABLED).strip() == "Y" and not os.environ.get("container")  # noqa: SIM112 -- systemd's name


def loaded(profile: str) -> bool:
    """Whether the profile is loaded. A line of the file in securityfs is ``name (mode)``."""
    return any(line.rpartition(" (")[0] == profile for line in _read(_SECURITYFS).splitlines())


def ensure_default() -> bool:
    """Loads the default profile unless it is loaded. Whether containers can have it. Blocks for up to a second."""
    if not in_kernel():
        return False
    if loaded(DEFAULT):
        return True
    parser = shutil.which("apparmor_parser", path=DEFAULT_ENV["PATH"])
    if parser is None or not os.path.exists(_SECURITYFS):
        log.warning("AppArmor does not confine containers: %s is missing", _SECURITYFS if parser else "apparmor_parser")
        return False
    try:
        run_sync(
            [parser, "--replace", "--skip-cache"],
            deadline=timeouts.seconds("program.run"),
            input=_PROFILE.encode(),
            check=True,
        )
    except (OSError, WharfError) as error:
        log.warning("AppArmor does not confine containers: the profile %s could not be loaded: %s", DEFAULT, error)
        return False
    return True
