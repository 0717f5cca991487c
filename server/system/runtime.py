"""Which cgroup driver this host gets when the configuration names none."""

import contextlib
import os

from engine.common.system import cgroups
from server.config import Config
from server.containers.spec.build import cgroups_path
from server.containers.spec.host import CGROUPFS, SYSTEMD


def cgroup_driver(config: Config) -> str:
    """The configured driver, else systemd where it is the init on a unified hierarchy, as dockerd chooses."""
    configured = config.exec_opts.get("native.cgroupdriver", "")
    if configured:
        return configured
    managed = cgroups.host_cgroups().v2 and os.path.isdir("/run/systemd/system")
    return SYSTEMD if managed else CGROUPFS


def prepare_cgroup_parent(config: Config) -> None:
    """So that the first containers may start all at once. Blocks."""
    driver = cgroup_driver(config)
    if driver == CGROUPFS:
        layout = cgroups.host_cgroups()
        with contextlib.suppress(OSError):  # then they are limited as far as they can be
            cgroups.delegate_controllers(layout)
        parent = os.path.dirname(cgroups_path("any", config.cgroup_parent, driver))
        with contextlib.suppress(OSError):  # the runtime will tell whom it concerns
            cgroups.prepare_cpuset(layout, parent)
