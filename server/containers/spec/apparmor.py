"""AppArmor: whether the host confines with it, and the profile ``docker-default`` that containers get.

A runtime refuses to start a process under a profile that the kernel doesn't know. So Docker's default profile is
loaded at start where it is missing; where it can't be (no ``apparmor_parser``, no securityfs), containers run without.
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

# What a container may not do whatever its capabilities say: change the kernel's settings through procfs and sysfs,
# mount, trace what is outside. Of the settings, those of its own namespaces stay writable (kernel.sem, kernel.shm*).
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
    """Whether the kernel confines with AppArmor (not so inside another container manager's container)."""
    return _read(_ENABLED).strip() == "Y" and not os.environ.get("container")  # noqa: SIM112 -- systemd's name


def loaded(profile: str) -> bool:
    """Whether the kernel knows the profile: a line of securityfs is ``name (mode)``."""
    return any(line.rpartition(" (")[0] == profile for line in _read(_SECURITYFS).splitlines())


def ensure_default() -> bool:
    """Whether containers can have the default profile; loads it if need be. May take a second: for a thread."""
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
