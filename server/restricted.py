"""Makes the services that only an engine with a policy has. The composition root imports this module only for one."""

from collections.abc import Callable, Mapping
from pathlib import Path

from server.access.caller import Caller
from server.access.policy import Policy, read_policy
from server.access.roles import Roles
from server.config import Config
from server.containers.exec.survivors import Survivors
from server.containers.model import Container
from server.containers.running import Running
from server.containers.service import Containers
from server.gpus.service import Gpus
from server.images.service import Images
from server.jobs.cleanup import Bound
from server.jobs.service import Jobs
from server.jobs.store import JobStore
from server.networks.service import Networks
from server.shares.service import Shares
from server.store.database import Database


def policy_of(config: Config) -> Policy:
    """:raises ConfigError: the policy is invalid."""
    return read_policy(Path(config.policy_file))


def make_roles(policy: Policy, jobs: Jobs) -> Roles:
    """The roles of owners, and the limits of job sockets."""
    return Roles(policy, bounds_of_job=jobs.bounds)


def make_gpus(roles: Roles, containers: Containers) -> Gpus:
    """The allocation of GPUs."""
    gpus = Gpus(containers.context, roles)
    containers.context.gpus = gpus
    return gpus


def make_shares(
    roles: Roles, containers: Containers, images: Images, networks: Networks, running: Running, gpus: Gpus
) -> Shares:
    """The limits and accounts of users."""

    async def image_sizes(scope: str) -> Mapping[str, int]:
        return await images.of(scope).list.own_sizes()

    survivors = Survivors(containers.context)

    async def active(container: Container) -> bool:
        return running.exec.active(container) or await survivors.run_in(container)

    shares = Shares(
        roles,
        containers.context,
        image_sizes=image_sizes,
        active=active,
        gpu_use=gpus.measure,
        links=networks.links,
    )
    shares.accounting.gpus = _count_gpus
    containers.context.shares = shares
    networks.context.own_ports = shares.ports
    return shares


def _count_gpus(container: Container) -> float:
    return len(container.gpus)


def make_jobs(config: Config, database: Database, bind: Callable[[Caller], Bound]) -> Jobs:
    """Job sockets. ``bind`` makes the services of a caller."""
    return Jobs(JobStore(database), config.exec_root / "jobs", bind)
