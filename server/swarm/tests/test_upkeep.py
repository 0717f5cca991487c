"""What follows a change of the swarm: seals, certificates, the end of a rotation."""

from dataclasses import replace
from pathlib import Path

from api_models.swarm.common import TLSInfo
from api_models.swarm.node import NodeDescription, NodeSpec
from server.swarm.facade import SwarmFacade
from server.swarm.model.objects import Node
from server.swarm.operations.cluster import Rotations
from server.swarm.state.state import Put
from server.swarm.tests.hosts import INIT, FakeEngine, run


def test_a_rotation_of_the_root_lasts_until_all_nodes_have_the_new_one(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "swarm")

    async def rotate(facade: SwarmFacade) -> None:
        await facade.init(INIT)
        manager = facade.manager()
        first = manager.state.cluster.root_certificate
        old = TLSInfo(trust_root=first)
        worker = Node(id="w", spec=NodeSpec(role="worker"), description=NodeDescription(hostname="w", tls_info=old))
        await manager.state.commit([Put(worker)])
        cluster = manager.state.cluster
        spec = replace(cluster.spec, ca_config=replace(cluster.spec.ca_config, force_rotate=1))
        await manager.cluster.update(cluster.version, spec, Rotations())
        shown = manager.cluster.inspect()
        assert shown["RootRotationInProgress"] is True
        second = shown["TLSInfo"]["TrustRoot"]
        assert second != first
        changes = manager.state.subscribe()
        # The request does not wait for the certificates, not even for this manager's.
        while manager.objects.nodes.inspect("one")["Description"]["TLSInfo"]["TrustRoot"] != second:
            await changes.next()
        worker = manager.state.tables.nodes.get("w")
        renewed = replace(worker.description, tls_info=TLSInfo(trust_root=second))
        await manager.state.commit([Put(replace(worker, description=renewed))])
        while manager.cluster.inspect()["RootRotationInProgress"]:
            await changes.next()

    run(engine, rotate)
