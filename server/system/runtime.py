"""The cgroup driver, and the preparation of the parent cgroup."""

import contextlib
import os

from engine.common.system import cgroups
from server.config import Config
from server.containers.spec.build import cgroups_path
from server.containers.spec.host import CGROUPFS, SYSTEMD


def cgroup_driver(config: Config) -> str:
    """Return the configured driver; else systemd if it is the init and the hierarchy is unified, as dockerd does."""
    configured = config.exec_opts.get("native.cgroupdriver", "")
    if configured:
        return configured
    managed = cgroups.host_cgroups().v2 and os.path.isdir("/run/systemd/system")
    return SYSTEMD if managed else CGROUPFS


def prepare_cgroup_parent(config: Config) -> None:
    """Prepare the parent cgroup of containers, so that concurrent first starts don't race to create it. Blocks."""
    driver = cgroup_driver(config)
    if driver == CGROUPFS:
        layout = cgroups.host_cgroups()
        with contextlib.suppress(OSError):  # the containers have the limits of the controllers that are delegated
            cgroups.delegate_controllers(layout)
        parent = os.path.dirname(cgroups_path("any", config.cgroup_parent, driver))
        with contextlib.suppress(OSError):  # a container that needs the cpuset fails with the runtime's error
            cgroups.prepare_cpuset(layout, parent)
