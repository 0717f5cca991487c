"""The swarm's networks in the API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from api_models.network import IPAM, ConfigReference, NetworkCreateRequest
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import Endpoint, EndpointSpec, NetworkAttachmentConfig, PortConfig, VirtualIP
from api_models.swarm.node import EngineDescription, NodeDescription, NodeStatus
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from engine.common.errors import Kind, WharfError
from server.networks import options
from server.networks.model import Network, PoolConfig
from server.swarm.model.objects import ESP, Attachment, Cluster, Node, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.networks import Networks, ingress
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tests.opened import opened


class _Sealer:
    def seal(self, data: bytes, /) -> str:
        return data.hex()

    def open(self, text: str, /) -> bytes:
        return bytes.fromhex(text)


def _play(path: Path, scenario: Callable[[State, Networks], Awaitable[None]]) -> None:
    async def run() -> None:
        cluster = Cluster(id="swarm")
        async with opened(path) as (_, state), asyncio.timeout(20):
            await state.commit([Put(cluster), Put(ingress(cluster))])
            await scenario(state, Networks(state, "n1", _Sealer()))

    asyncio.run(run())


def _request(
    name: str,
    *,
    driver: str = "overlay",
    is_ingress: bool = False,
    attachable: bool = False,
    ipam: IPAM | None = None,
    given: Mapping[str, str] | None = None,
) -> NetworkCreateRequest:
    return NetworkCreateRequest(
        name=name, driver=driver, ingress=is_ingress, attachable=attachable, ipam=ipam, options=dict(given or {})
    )


async def _refused(request: Awaitable[object]) -> tuple[Kind, str]:
    with pytest.raises(WharfError) as error:
        await request
    return error.value.kind, error.value.message.partition("desc = ")[2] or error.value.message


def _service(network: str, *, published: bool = False) -> Service:
    port = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="ingress")
    return Service(
        id="s1",
        spec=ServiceSpec(
            name="web",
            task_template=TaskSpec(
                container_spec=ContainerSpec(image="busybox"), networks=(NetworkAttachmentConfig(target=network),)
            ),
            endpoint_spec=EndpointSpec(ports=(port,)) if published else None,
        ),
        endpoint=Endpoint(virtual_ips=(VirtualIP(network_id=network, addr="10.0.1.2/24"),)),
    )


def _task(network: str, *, state: TaskState = TaskState.RUNNING, node_id: str = "n1") -> Task:
    return Task(
        id="t1",
        service_id="s1",
        service_name="web",
        slot=1,
        node_id=node_id,
        spec=TaskSpec(networks=(NetworkAttachmentConfig(target=network),)),
        status=TaskStatus(state=int(state)),
        desired_state=int(TaskState.RUNNING),
        attachments=(Attachment(network_id=network, addresses=("10.0.1.3/24",)),),
    )


def _pools(network: Network) -> list[tuple[str, str]]:
    return [(pool.subnet, pool.gateway) for pool in network.ipam or ()]


def test_subnets_and_identifiers_come_from_the_swarms_pool(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        made = [await networks.create(_request(name), ()) for name in ("front", "back")]
        assert [_pools(network) for network in made] == [[("10.0.1.0/24", "10.0.1.1")], [("10.0.2.0/24", "10.0.2.1")]]
        assert [network.options[options.VNI] for network in made] == ["4097", "4098"]
        assert {(network.scope, network.driver) for network in made} == {("swarm", "overlay")}
        assert [network.name for network in networks.networks()] == ["back", "front", "ingress"]
        # What a removed network had is free again.
        await networks.remove(made[0].id)
        again = await networks.create(_request("third"), ())
        assert (_pools(again), again.options[options.VNI]) == ([("10.0.1.0/24", "10.0.1.1")], "4097")
        assert networks.find(again.id[:8]) is not None
        assert networks.find("front") is None

    _play(tmp_path, scenario)


def test_requested_subnets(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        pool = PoolConfig("10.9.0.0/16", ip_range="10.9.1.0/24", aux={"host": "10.9.0.5"})
        made = await networks.create(_request("front", given={options.VNI: "5000"}), (pool,))
        assert _pools(made) == [("10.9.0.0/16", "10.9.1.0")]
        assert made.options[options.VNI] == "5000"
        stored = state.tables.networks.get("front")
        (config,) = stored.ipam.config or ()
        assert (config.ip_range, config.auxiliary_addresses) == ("10.9.1.0/24", {"host": "10.9.0.5"})
        six = await networks.create(_request("six"), (PoolConfig("fd00:1::/64"),))
        assert [ip_network(subnet).version for subnet, _ in _pools(six)] == [6, 4]
        sized = await networks.create(_request("sized"), (PoolConfig("0.0.0.0/28"),))
        assert [ip_network(subnet).prefixlen for subnet, _ in _pools(sized)] == [28]

    _play(tmp_path, scenario)


def test_options_of_ipam_are_shown(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        made = await networks.create(_request("front", ipam=IPAM(options={"foo": "bar"})), ())
        assert made.ipam_options == {"foo": "bar", "com.docker.network.ipam.serial": "true"}
        assert (await networks.create(_request("back"), ())).ipam_options is None

    _play(tmp_path, scenario)


def test_refusals(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        await networks.create(_request("front", given={options.VNI: "5000"}), (PoolConfig("10.9.0.0/16"),))
        present = state.tables.ingress
        assert present is not None
        cases: Sequence[tuple[NetworkCreateRequest, Sequence[PoolConfig], Kind, str]] = (
            (_request("front"), (), Kind.CONFLICT, "network with name front already exists"),
            (_request("x", is_ingress=True), (), Kind.CONFLICT, f"ingress network ({present.id}) is already present"),
            (_request("x"), (PoolConfig("10.9.3.0/24"),), Kind.PERMISSION_DENIED, "Pool overlaps with other one"),
            (_request("x", given={options.VNI: "5000"}), (), Kind.INVALID_ARGUMENT, "could not assign vxlan id 5000"),
            (_request("x", given={options.VNI: "99999999"}), (), Kind.INVALID_ARGUMENT, "invalid vxlan id value"),
            (_request("x", given={"encrypted": ""}), (), Kind.NOT_IMPLEMENTED, "CONFIG_INET_ESP"),
            (
                replace(_request("x"), enable_ipv4=False),
                (),
                Kind.INVALID_ARGUMENT,
                "IPv4 cannot be disabled",
            ),
            (_request("x", driver="null"), (), Kind.INVALID_ARGUMENT, "error during lookup of plugin null"),
            (
                replace(_request("x"), config_from=ConfigReference(network="cfg")),
                (),
                Kind.PERMISSION_DENIED,
                "user specified configurations are not supported",
            ),
            (_request("x", driver="bridge", is_ingress=True), (), Kind.PERMISSION_DENIED, "can only be global scope"),
            (_request("x", is_ingress=True, attachable=True), (), Kind.INVALID_ARGUMENT, "cannot be attachable"),
            (_request("x", ipam=IPAM(driver="far")), (), Kind.INVALID_ARGUMENT, "error during lookup of plugin far"),
        )
        for request, pools, kind, sentence in cases:
            found, message = await _refused(networks.create(request, pools))
            assert (found, sentence in message) == (kind, True), message
        assert await _refused(networks.remove("nope")) == (Kind.NOT_FOUND, "network nope not found")

    _play(tmp_path, scenario)


def test_node_local_networks_have_no_subnet(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        request = _request("near", driver="macvlan", attachable=True)
        made = await networks.create(replace(request, config_from=ConfigReference(network="cfg")), ())
        assert (made.driver, made.scope, made.config_from, made.attachable) == ("macvlan", "swarm", "cfg", True)
        # Their options and subnets are those of each node.
        given = _request("ignored", driver="", given={"encrypted": "", "parent": "eth0"})
        ignored = await networks.create(given, (PoolConfig("10.0.1.0/24"),))
        assert (ignored.driver, ignored.options, ignored.ipam, ignored.config_from) == ("bridge", {}, [], "")
        assert state.tables.network_keys is None
        # The subnet and the identifier are free for an overlay network.
        assert (await networks.create(_request("far"), ())).options[options.VNI] == "4097"
        await networks.create(_request("front"), (PoolConfig("10.0.2.0/24"),))
        found = networks.find("near")
        assert found is not None
        assert networks.details(found, verbose=False) == {"Peers": None}
        await networks.remove(made.id)

    _play(tmp_path, scenario)


def test_encrypted_networks_have_keys(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        description = NodeDescription(engine=EngineDescription(plugins=(ESP,)))
        await state.commit([Put(Node(id="n1", description=description))])
        await networks.create(_request("open"), ())
        assert state.tables.network_keys is None
        made = await networks.create(_request("secret", given={"encrypted": ""}), ())
        assert (made.encrypted, made.options["encrypted"]) == (True, "")
        first = state.tables.network_keys
        assert first is not None
        assert len(_Sealer().open(first.sealed)) == 96
        # They are stored again, so that the leader does not delete them at the same time.
        await networks.create(_request("other", given={"encrypted": "false"}), ())
        second = state.tables.network_keys
        assert second == replace(first, version=state.revision)

    _play(tmp_path, scenario)


def test_a_network_in_use_is_not_removed(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        front = await networks.create(_request("front"), ())
        await state.commit([Put(_service(front.id, published=True)), Put(_task(front.id))])
        present = state.tables.ingress
        assert present is not None
        in_use = f"network {front.id} is in use by"
        depends = "ingress network cannot be removed because service s1 depends on it"
        assert await _refused(networks.remove(present.id)) == (Kind.INVALID_ARGUMENT, depends)
        assert await _refused(networks.remove(front.id)) == (Kind.INVALID_ARGUMENT, f"{in_use} service s1")
        # The service's former tasks use the network until they are shut down.
        await state.commit([Put(replace(_service("other"), version=state.tables.services.get("s1").version))])
        assert await _refused(networks.remove(front.id)) == (Kind.INVALID_ARGUMENT, f"{in_use} task t1")
        await state.commit([Delete(state.tables.services.get("s1"))])
        await networks.remove(front.id)
        await networks.remove(present.id)
        assert list(state.tables.networks) == []

    _play(tmp_path, scenario)


def test_inspect_shows_addresses_peers_and_services(tmp_path: Path) -> None:
    async def scenario(state: State, networks: Networks) -> None:
        front = await networks.create(_request("front"), ())
        node = Node(id="n1" * 10, status=NodeStatus(addr="192.0.2.1"))
        await state.commit([Put(_service(front.id)), Put(_task(front.id, node_id=node.id)), Put(node)])
        found = networks.find("front")
        assert found is not None
        taken = {address for pool in found.pools for address in pool.taken}
        assert {ip_address("10.0.1.2"), ip_address("10.0.1.3")} <= taken
        shown = networks.details(front, verbose=True)
        assert shown["Peers"] == [{"Name": node.id[:12], "IP": "192.0.2.1"}]
        web = shown["Services"]["web"]
        assert web["VIP"] == "10.0.1.2"
        assert [task["EndpointIP"] for task in web["Tasks"]] == ["10.0.1.3"]
        assert networks.details(networks.networks()[1], verbose=False) == {"Peers": None}

    _play(tmp_path, scenario)


def test_the_ingress_network_avoids_routes_of_the_machine() -> None:
    cluster = Cluster(id="swarm")
    (pool,) = ingress(cluster).ipam.config or ()
    assert (pool.subnet, pool.gateway) == ("10.0.0.0/24", "10.0.0.1")
    (pool,) = ingress(cluster, [ip_network("10.0.0.0/23")]).ipam.config or ()
    assert pool.subnet == "10.0.2.0/24"
    # All of the pool is in use: the network is made all the same.
    (pool,) = ingress(cluster, [ip_network("10.0.0.0/8")]).ipam.config or ()
    assert pool.subnet == "10.0.0.0/24"
