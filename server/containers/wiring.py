"""The container service made from the daemon's configuration (called by the composition root)."""

import contextlib

from api_models.container import LogConfig
from api_models.resources import Ulimit
from engine.api.client import Engine
from engine.common.errors import WharfError
from engine.shim.zygote import Handle
from server.config.model import Config
from server.containers.context import ContainerContext, Defaults
from server.containers.create.validate import Rules
from server.containers.host.limits import detect
from server.containers.host.owners import OwnerRemaps
from server.containers.host.remap import Remap
from server.containers.host.runtimes import Runtimes
from server.containers.neighbours import Images, Networks, Store, Volumes
from server.containers.service import Containers
from server.containers.spec.host import SYSTEMD, HostFacts
from server.containers.stdio_backend import IoHosts
from server.events.publisher import EventPublisher


def defaults_from(config: Config, facts: HostFacts) -> Defaults:
    """The defaults of containers by the configuration and this host.

    :raises OSError: the configured seccomp profile can't be read.
    """
    return Defaults(
        log_config=LogConfig(type=config.log_driver, config=dict(config.log_opts)),
        ulimits={
            name: Ulimit(name=name, soft=limit.soft, hard=limit.hard) for name, limit in config.default_ulimits.items()
        },
        cgroupns_mode=config.default_cgroupns_mode or ("private" if facts.cgroup_v2 else "host"),
        seccomp_profile=_seccomp(config.seccomp_profile),
    )


def _seccomp(setting: str) -> str:
    """The daemon's profile: "" for the built-in one, ``unconfined``, or the JSON of the configured file."""
    if setting in ("", "builtin"):
        return ""
    if setting == "unconfined":
        return setting
    with open(setting) as file:
        return file.read()


def make_containers(
    config: Config,
    *,
    engine: Engine,
    store: Store,
    bus: EventPublisher,
    images: Images,
    networks: Networks,
    volumes: Volumes,
    facts: HostFacts,
    default_runtime: str,
    zygote: Handle | None = None,
    owner_remaps: OwnerRemaps,
    remap: Remap | None = None,
) -> Containers:
    """``default_runtime``: used if the configuration names none (see ``engine.runtime.probe``). ``zygote``: forks the
    I/O hosts that a stock containerd needs; None with our own supervisor.

    :raises OSError: the configured seccomp profile can't be read.
    """
    runtimes = Runtimes(
        config.runtimes,
        config.default_runtime or default_runtime,
        systemd_cgroup=facts.cgroup_driver == SYSTEMD,
        scripts=f"{config.data_root}/runtimes",
    )
    limits = detect(facts.cgroups)
    context = ContainerContext(
        engine=engine,
        store=store,
        bus=bus,
        images=images,
        networks=networks,
        volumes=volumes,
        config=config,
        defaults=defaults_from(config, facts),
        runtimes=runtimes,
        limits=limits,
        facts=facts,
        owner_remaps=owner_remaps,
        remap=remap,
    )
    if zygote is not None:

        async def close_input(container: str, exec_id: str) -> None:
            with contextlib.suppress(WharfError):
                await engine.tasks.close_io(container, exec_id)

        context.stdio = IoHosts(f"{config.exec_root}/containers", zygote, close_input)
    rules = Rules(
        limits=limits,
        systemd_cgroup=facts.cgroup_driver == SYSTEMD,
        runtime=runtimes.check,
        userns_remap=remap is not None,
    )
    return Containers(context, rules)
