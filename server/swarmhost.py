"""Connects a swarm's manager with the services of this engine. The composition root imports this module only in a
swarm."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from api_models.swarm.node import NodeDescription
from engine.common.sockets import join_host_port
from server.containers.host.remap import Remap
from server.containers.logs.follow import Logs
from server.containers.service import Containers
from server.events import EventBus
from server.images.service import Images
from server.networks.ipam.pools import subnets_in_use
from server.networks.netlink.rtnetlink import Netlink
from server.networks.service import Networks
from server.swarm.agent.description import describe
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.agent.logs import task_log
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.worker import Agent, clear
from server.swarm.host import Host, Listening, ManagerSide, Part, SwarmOptions
from server.swarm.interfaces import Interface, Interfaces
from server.swarm.membership import Membership
from server.swarm.model.objects import Cluster, Object
from server.swarm.operations.networks import Networks as SwarmNetworks
from server.swarm.operations.networks import ingress
from server.swarm.remote.identity import Identity
from server.swarm.remote.images import PeerSource
from server.swarm.remote.logs import NODE_PORT
from server.swarmapi.deferred import App
from server.swarmapi.listener import PatientListener, SwarmListener
from server.system.service import System


def make_host(
    identity: str,
    system: System,
    events: EventBus,
    containers: Containers,
    images: Images,
    networks: Networks,
    logs: Logs,
    remap: Remap | None,
) -> Host:
    """``identity``: the engine's ID. The services are those of administrators."""
    config = system.config
    neighbours = Neighbours(
        containers=containers,
        images=images,
        networks=networks,
        logs=logs,
        system=system,
        exec_root=config.exec_root,
        remap=remap,
        cdi_spec_dirs=config.cdi_spec_dirs,
        overlay=networks.overlay,
    )

    async def description() -> NodeDescription:
        return await describe(neighbours)

    async def interfaces() -> Interfaces:
        own = [subnet for network in networks.context for subnet in network.subnets]
        return Interfaces(await asyncio.to_thread(_interfaces), own, config.swarm_default_advertise_addr)

    async def initial(cluster: Cluster) -> Sequence[Object]:
        return [ingress(cluster, await asyncio.to_thread(subnets_in_use, networks.context.host))]

    log = partial(task_log, neighbours)

    def local_network(key: str) -> str | None:
        network = networks.visible.find(key)
        return network.name if network is not None else None

    def agent(dispatcher: Dispatcher, identity: Identity) -> Part:
        made = Agent(dispatcher, neighbours, partial(PeerSource, identity))
        networks.context.attacher = made.attachments
        return made

    def manage(manager: ManagerSide | None) -> None:
        networks.context.swarm = (
            None if manager is None else SwarmNetworks(manager.state, manager.membership.node_id, manager.keys)
        )

    async def manager_port(manager: ManagerSide) -> Listening:
        def load() -> App:
            from server.swarmapi.managers import ManagerPort, manager_app

            return manager_app(ManagerPort(manager.state, manager.admission, manager.dispatcher_of, manager.members))

        listener = SwarmListener(load, manager.identity)
        await listener.open(manager.membership.listen_addr)
        return listener

    async def node_port(
        membership: Membership, identity: Identity, dispatcher: Dispatcher, is_manager: Callable[[str], bool]
    ) -> Listening:
        def load() -> App:
            from server.swarmapi.images import ImagePort
            from server.swarmapi.nodes import NodePort, node_app

            shared = ImagePort(images.local.shared, dispatcher.readable_images)
            return node_app(NodePort(membership.cluster_id, membership.node_id, is_manager, log, shared))

        address = join_host_port(membership.listen_addr.rpartition(":")[0].strip("[]"), NODE_PORT)
        # Of several nodes on one machine only one has the port; the others work, as dockerd's do without gossip.
        lacking = "managers on other nodes can't read the logs of this node's tasks, nor other nodes its images"
        listener = PatientListener(SwarmListener(load, identity), address, lacking)
        await listener.open()
        return listener

    async def leave() -> None:
        networks.context.swarm = networks.context.attacher = None
        await clear(neighbours)

    return Host(
        directory=config.data_root / "swarm",
        runtime=config.exec_root / "swarm",
        options=SwarmOptions(
            store=config.swarm_store,
            peer_port=config.swarm_etcd_peer_port,
            ca=config.swarm_store_ca,
            certificate=config.swarm_store_cert,
            key=config.swarm_store_key,
        ),
        engine_id=identity,
        events=events,
        describe=description,
        interfaces=interfaces,
        initial=initial,
        agent=agent,
        manage=manage,
        manager_port=manager_port,
        node_port=node_port,
        local_network=local_network,
        task_log=log,
        leave=leave,
    )


def _interfaces() -> list[Interface]:
    """In a thread: those of the machine's network namespace."""
    with Netlink() as netlink:
        addresses = netlink.addresses()
        return [
            Interface(link.name, link.kind, link.up, [each.ip for index, each in addresses if index == link.index])
            for link in netlink.links()
        ]
