"""Which OCI runtime and which cgroup driver this host gets when the configuration names none."""

import os
import shutil

from engine.errors import Kind, WharfError
from engine.runtime.spec.host import CGROUPFS, SYSTEMD, HostFacts
from engine.system import cgroups
from server.config import Config


def cgroup_driver(config: Config) -> str:
    """The configured driver, else systemd where it is the init on a unified hierarchy, as dockerd chooses."""
    configured = config.exec_opts.get("native.cgroupdriver", "")
    if configured:
        return configured
    managed = cgroups.host_cgroups().v2 and os.path.isdir("/run/systemd/system")
    return SYSTEMD if managed else CGROUPFS


def choose_runtime(facts: HostFacts) -> tuple[str, str]:
    """(name, warning): crun, which starts several times faster, where it works; else runc.

    crun refuses a hybrid layout with controllers left in the unified tree, and so can't run anything there.

    :raises WharfError: UNAVAILABLE: neither is installed.
    """
    crun, runc = shutil.which("crun"), shutil.which("runc", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    left = _controllers_left(facts.cgroups)
    if crun and not left:
        return "crun", ""
    if runc:
        reason = f"cgroup controllers {left} are mounted neither as v1 nor alone as v2" if crun else ""
        return "runc", f"WARNING: crun can't be used here, runc is slower: {reason}" if reason else ""
    if crun:
        raise WharfError(Kind.UNAVAILABLE, f"crun can't work with a hybrid cgroup layout (left in v2: {left})")
    raise WharfError(Kind.UNAVAILABLE, "no OCI runtime found: install crun or runc")


def _controllers_left(layout: cgroups.CgroupLayout) -> str:
    """The controllers that a hybrid layout leaves in its unified tree."""
    if layout.mode != "hybrid" or layout.unified is None:
        return ""
    try:
        with open(os.path.join(layout.unified, "cgroup.controllers")) as file:
            return file.read().strip()
    except OSError:
        return ""
