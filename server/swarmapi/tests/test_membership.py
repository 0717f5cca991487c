"""Nodes join a swarm, renew their certificates, and follow the managers and the root."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.node import NodeDescription
from engine.common.errors import Kind, Reason, WharfError
from server.swarm import certificates
from server.swarm.operations.admission import Admission
from server.swarm.remote import renewal
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Certificate, Identity
from server.swarm.remote.join import join
from server.swarm.remote.records import JoinRequest, Standing
from server.swarm.remote.renewal import Renewal, renewed
from server.swarm.state.state import Delete, Put, State
from server.swarmapi.tests.site import MANAGER, SWARM, Site, identity_of, run, until


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_a_node_joins_with_the_role_of_its_token(tmp_path: Path, role: str) -> None:
    async def scenario(site: Site) -> None:
        joined = await site.join(role, availability="Drain")
        assert (joined.role, joined.cluster_id, joined.addr) == (role, SWARM, "127.0.0.1:2377")
        assert [(each.node_id, each.addr) for each in joined.managers] == [(MANAGER, site.addresses[0])]
        node = site.state.tables.nodes.get(joined.node_id)
        assert (node.spec.role, node.spec.availability, node.engine_id) == (role, "drain", "engine")
        assert (node.status.state, node.status.addr, node.data_path_addr) == ("unknown", "127.0.0.1", "127.0.0.1")
        assert node.description.hostname == "w"
        assert node.description.tls_info.trust_root == site.state.cluster.root_certificate
        standing = await site.managers(identity_of(joined)).standing()
        assert (standing.role, standing.managers) == (role, joined.managers)

    run(tmp_path, scenario)


def test_a_request_whose_answer_was_lost_makes_one_node(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        request = JoinRequest(token=site.token(), csr=certificates.make_request().csr, advertise_addr="192.0.2.9:2400")
        admission = Admission(site.state, site.keys)
        first = await admission.join(request, "127.0.0.9")
        node = site.state.tables.nodes.get(first.node_id)
        await site.state.commit([Put(replace(node, spec=replace(node.spec, availability="pause")))])
        again = await admission.join(replace(request, data_path_addr="192.0.2.10"), "127.0.0.9")
        assert (again.node_id, again.addr) == (first.node_id, "192.0.2.9:2400")
        node = site.state.tables.nodes.get(first.node_id)
        assert (node.spec.availability, node.data_path_addr) == ("pause", "192.0.2.10")
        assert len(site.state.tables.nodes) == 2

    run(tmp_path, scenario)


def test_what_is_refused_to_a_node_that_joins(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        token = site.token()
        digest = token.split("-")[2]
        other = certificates.join_token(certificates.make_root().certificate)
        long = NodeDescription(hostname="x" * 200_000)
        request = JoinRequest(token=token)
        for wrong, sentence in (
            (replace(request, token=""), "A valid join token is necessary to join this cluster$"),
            (replace(request, token="SWMTKN"), r"^invalid join token$"),
            (replace(request, token=other), "^remote CA does not match fingerprint. Expected: [0-9a-f]{64}$"),
            (
                replace(request, token=f"SWMTKN-1-{digest}-{'0' * 25}"),
                "^rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster$",
            ),
            (replace(request, availability="x"), '^invalid Availability: "x"$'),
            (replace(request, advertise_addr="a.example:1"), "no IP address"),
            (replace(request, advertise_addr="192.0.2.1:0"), "no valid port"),
            (replace(request, data_path_addr="eth0"), "no IP address"),
            (replace(request, engine_id="x" * 1000), "engine's id"),
            (replace(request, description=long), "more than 131072 bytes"),
        ):
            with pytest.raises(WharfError, match=sentence) as refused:
                await join(site.addresses, wrong)
            assert refused.value.kind is Kind.INVALID_ARGUMENT
        assert len(site.state.tables.nodes) == 1

    run(tmp_path, scenario)


def test_a_manager_that_can_not_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        await site.listeners[0].close()
        address = site.addresses[0]
        with pytest.raises(WharfError, match=rf"code = Unavailable .*dial tcp {address}: connect: connection refused"):
            await site.join()

    monkeypatch.setattr("server.swarm.remote.join._PAUSE", 0.05)
    run(tmp_path, scenario)


def test_a_node_waits_while_the_state_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moving = 2

    async def moves() -> None:
        nonlocal moving
        moving -= 1
        if moving >= 0:
            raise WharfError(Kind.UNAVAILABLE, "the swarm's state moves into etcd")

    async def scenario(site: Site) -> None:
        site.prepare = moves
        await site.join()
        assert (moving, len(site.state.tables.nodes)) == (-1, 2)

    monkeypatch.setattr("server.swarm.remote.join._LATER", 0.05)
    run(tmp_path, scenario)


def test_a_manager_whose_state_lags_knows_a_promotion(tmp_path: Path) -> None:
    """Another manager has stored the promotion and has issued the certificate a moment ago."""

    async def scenario(site: Site) -> None:
        lagging = State(site.state.store)
        await lagging.open()
        joined, managers = await site.worker()
        await lagging.synchronize()
        assert lagging._task is not None
        lagging._task.cancel()
        await asyncio.gather(lagging._task, return_exceptions=True)
        node = site.state.tables.nodes.get(joined.node_id)
        await site.state.commit([Put(replace(node, spec=replace(node.spec, role="manager")))])
        promoted = Identity(None)
        promoted.put(*await renewed(managers))
        late = Managers(promoted, [await site.listen(state=lagging)])

        def resume() -> None:
            lagging._task = asyncio.create_task(lagging._follow())

        asyncio.get_running_loop().call_later(0.1, resume)
        await late.request("POST", "/v1/member/promote")
        assert site.members.promoted == [joined.node_id]
        await late.close()
        await lagging.close()

    run(tmp_path, scenario)


def test_the_certificate_follows_the_role_of_the_spec(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker("manager")
        await managers.request("POST", "/v1/member", {"PeerURL": "https://127.0.0.1:2380", "Addr": "0.0.0.0:2377"})
        assert [(id, request.peer_url, ip) for id, request, ip in site.members.joined] == [
            (joined.node_id, "https://127.0.0.1:2380", "127.0.0.1")
        ]
        await managers.request("POST", "/v1/member/promote")
        assert site.members.promoted == [joined.node_id]
        await managers.request("POST", "/v1/member/leave", {"PeerURL": "https://127.0.0.1:2380", "Addr": ""})
        assert site.members.left == [(joined.node_id, "https://127.0.0.1:2380")]
        node = site.state.tables.nodes.get(joined.node_id)
        await site.state.commit([Put(replace(node, spec=replace(node.spec, role="worker")))])
        for method, path in (
            ("POST", "/v1/member/promote"),
            ("POST", "/v1/member/leave"),
            ("POST", "/v1/dispatcher/heartbeat"),
            ("GET", "/v1/dispatcher/secrets/x"),
        ):
            with pytest.raises(WharfError, match="no longer a manager") as refused:
                await managers.request(method, path)
            assert refused.value.kind is Kind.PERMISSION_DENIED
        demoted = Identity(None)
        demoted.put(*await renewed(managers))
        with pytest.raises(WharfError, match=r"not part of OUs: \[swarm-manager\]"):
            await site.managers(demoted).request("POST", "/v1/member/promote")
        assert (await site.managers(demoted).standing()).role == "worker"
        assert site.members.promoted == [joined.node_id]

    run(tmp_path, scenario)


def test_a_removed_node_is_refused_and_its_streams_end(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        standings = managers.follow()
        await anext(standings)
        await site.state.commit([Delete(site.state.tables.nodes.get(joined.node_id))])
        sentence = f"Permission denied: node {joined.node_id} was removed from swarm$"
        with pytest.raises(WharfError, match=sentence):
            await anext(standings)
        for method, path in (("POST", "/v1/renew"), ("GET", "/v1/managers"), ("GET", "/v1/dispatcher/assignments")):
            with pytest.raises(WharfError, match=sentence) as refused:
                await managers.request(method, path, {"csr": ""} if method == "POST" else None)
            assert (refused.value.kind, refused.value.reason) == (Kind.PERMISSION_DENIED, Reason.NODE_REMOVED)

    run(tmp_path, scenario)


def test_only_a_removal_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node ends its tasks then: it must not for a manager whose clock is wrong."""

    async def scenario(site: Site) -> None:
        joined = await site.join()
        identity, removals = identity_of(joined), asyncio.Event()
        loop = asyncio.create_task(
            Renewal(site.managers(identity), identity, "worker", lambda role: None, removals.set).run()
        )
        monkeypatch.setattr("server.swarmapi.caller.time.time", lambda: 2**40)
        await asyncio.sleep(0.5)
        assert not removals.is_set()
        monkeypatch.undo()
        await site.state.commit([Delete(site.state.tables.nodes.get(joined.node_id))])
        await removals.wait()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    monkeypatch.setattr(renewal, "_RETRY", 0.05)
    run(tmp_path, scenario)


def test_a_worker_renews_during_a_rotation_of_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        upkeep = asyncio.create_task(site.upkeep.run())
        joined = await site.join()
        identity = identity_of(joined)
        managers = site.managers(identity)
        seen: list[Standing] = []
        loop = asyncio.create_task(Renewal(managers, identity, "worker", lambda role: None).run())
        other = asyncio.create_task(_collect(managers, seen))
        first = site.state.cluster.root_certificate
        # This one is away meanwhile, and trusts the first root only.
        away = site.managers(identity_of(await site.join()))
        await until(lambda: bool(seen))
        await site.rotate()
        second = site.state.cluster.root_certificate
        await until(lambda: identity.current.root == second)
        assert site.state.cluster.rotated_from == first
        assert (await away.standing()).roots == (second, first)
        assert certificates.issued_by(identity.current.certificate, second)
        # A node that joins now has the new root.
        assert (await site.join()).certificate.root == second
        returned = Identity(None)
        returned.put(*await renewed(away))
        await site.managers(returned).standing()
        await until(lambda: not site.state.cluster.rotated_from and identity.current.roots == (second,))
        assert [standing.root for standing in seen][:1] == [first]
        assert seen[-1].root == second
        await until(lambda: site.identity.current.roots == (second,))
        await away.close()  # also the connection that began with the first root
        with pytest.raises(WharfError) as refused:
            await away.standing()
        assert refused.value.kind is Kind.UNAVAILABLE
        for task in (loop, other, upkeep):
            task.cancel()
        await asyncio.gather(loop, other, upkeep, return_exceptions=True)

    monkeypatch.setattr(renewal, "_RETRY", 0.05)
    run(tmp_path, scenario)


async def _collect(managers: Managers, seen: list[Standing]) -> None:
    """The stream ends with each new certificate, and is begun again."""
    while True:
        async for standing in managers.follow():
            seen.append(standing)  # noqa: PERF401


def test_a_certificate_is_renewed_in_time_and_a_role_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(site: Site) -> None:
        joined = await site.join()
        identity = Identity(None)
        identity.put(replace(joined.certificate, renew_ns=1), joined.key)
        roles: list[str] = []
        loop = asyncio.create_task(Renewal(site.managers(identity), identity, "worker", roles.append).run())
        await until(lambda: identity.current.renew_ns > 1)
        renewed_once: Certificate = identity.current
        node = site.state.tables.nodes.get(joined.node_id)
        await site.state.commit([Put(replace(node, spec=replace(node.spec, role="manager")))])
        await until(lambda: bool(roles))
        assert roles == ["manager"]
        assert identity.current == renewed_once
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    monkeypatch.setattr(renewal, "_RETRY", 0.05)
    run(tmp_path, scenario)
