"""Images from other nodes: what a node may read, and what happens when one fails or sends other content."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from api_models.swarm.container import ContainerSpec
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from engine.api.tests.fake import FakeServer
from engine.api.types import Descriptor
from engine.common import jsontext
from engine.common.errors import Kind, WharfError, not_found
from server.containers.logs.format import Query
from server.registry import oci
from server.registry.download import Downloads, Fetched
from server.registry.reference import parse
from server.swarm.agent.dispatcher import NodeAddress
from server.swarm.model.objects import Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote.dispatcher import RemoteDispatcher
from server.swarm.remote.identity import Identity
from server.swarm.remote.images import PeerSource
from server.swarm.state.state import Put
from server.swarmapi.images import ImagePort
from server.swarmapi.listener import SwarmListener
from server.swarmapi.nodes import NodePort, node_app
from server.swarmapi.tests.site import MANAGER, SWARM, Site, identity_of, run

IMAGE = parse("app:1").tagged()
LAYER = os.urandom(3 << 20)
DIGEST = oci.digest_of(LAYER)
DESCRIPTOR = Descriptor(oci.OCI_LAYER, DIGEST, len(LAYER))
MANIFEST = jsontext.dumps({"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "layers": []})


@dataclass(slots=True)
class Stored:
    """The image on a node. ``broken``: the number of bytes after which a read fails."""

    contents: dict[str, bytes]
    digest: str = oci.digest_of(MANIFEST)
    broken: int = -1
    reads: list[tuple[str, int]] = field(default_factory=list)

    @property
    def blobs(self) -> Mapping[str, int]:
        return {digest: len(data) for digest, data in self.contents.items()}

    async def read(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        self.reads.append((digest, offset))
        data = self.contents[digest]
        for start in range(offset, len(data), 1 << 19):
            if 0 <= self.broken <= start:
                raise OSError("the disk is gone")
            yield data[start : start + (1 << 19)]


def stored(layer: bytes = LAYER, *, broken: int = -1) -> Stored:
    return Stored({oci.digest_of(MANIFEST): MANIFEST, DIGEST: layer}, broken=broken)


async def no_log(task: Task, query: Query) -> AsyncIterator[bytes]:
    yield b""


@dataclass(slots=True)
class Nodes:
    """Nodes with ports; all have the port of the first, on addresses of their own."""

    site: Site
    port: int = 0
    asked: int = 0
    images: list[Stored] = field(default_factory=list)
    found: list[NodeAddress] = field(default_factory=list)

    async def add(self, image: Stored, *, manager: bool = True) -> None:
        """A node with a task of the service, and the image. ``manager``: what the asking node is told of it."""
        joined = await self.site.join()
        identity, id = identity_of(joined), joined.node_id
        await self.site.state.commit([Put(task(f"t-{id}", id, TaskState.RUNNING))])
        dispatcher = RemoteDispatcher(self.site.managers(identity))

        async def find(name: str) -> Stored:
            if name != "app:1":
                raise not_found(f"No such image: {name}")
            return image

        async def readable(service: str, node: str) -> Sequence[str]:
            self.asked += 1
            return await dispatcher.readable_images(service, node)

        port = NodePort(SWARM, id, lambda node: False, no_log, ImagePort(find, readable))
        listener, host = SwarmListener(partial(node_app, port), identity), f"127.0.0.{len(self.found) + 1}"
        address = await listener.open(f"{host}:{self.port}")
        self.port = int(address.rpartition(":")[2])
        self.site.stack.push_async_callback(listener.close)
        self.found.append(NodeAddress(id, host, manager=manager))
        self.images.append(image)

    def source(self, identity: Identity, service: str = "s1", image: str = "app:1") -> PeerSource:
        return PeerSource(identity, parse(image).tagged(), service, self.found, self.port)


def task(id: str, node_id: str, state: TaskState = TaskState.PREPARING, service: str = "s1") -> Task:
    spec = TaskSpec(container_spec=ContainerSpec(image="app:1"))
    return Task(id=id, service_id=service, node_id=node_id, spec=spec, status=TaskStatus(state=int(state)))


async def asker(site: Site) -> Identity:
    """A node with a task of the service, and without the image."""
    joined = await site.join()
    await site.state.commit([Put(Service(id="s1")), Put(task("t1", joined.node_id))])
    return identity_of(joined)


async def fetched(tmp_path: Path, source: PeerSource) -> bytes:
    engine = FakeServer(tmp_path / "engine").client()
    async with source:
        found = await Downloads(engine, limit=3, attempts=5).fetch(source, DESCRIPTOR)
        assert found is Fetched.HERE
        return b"".join([piece async for piece in engine.content.read(DIGEST)])


def test_a_node_reads_the_image_of_its_task(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        await nodes.add(stored())
        async with nodes.source(identity) as source:
            assert await source.head(IMAGE.selector) is None
            for selector in (IMAGE.selector, oci.digest_of(MANIFEST)):
                assert await source.manifest(selector) == (MANIFEST, oci.OCI_MANIFEST)
        assert await fetched(tmp_path, nodes.source(identity)) == LAYER
        assert nodes.asked == 1  # the manager's answer holds for a while
        async with nodes.source(identity) as source:
            with pytest.raises(WharfError, match="not found") as refused:
                await source.manifest("sha256:" + 64 * "0")
            assert refused.value.kind is Kind.NOT_FOUND
            # A blob that the node lacks says nothing about others.
            assert await source.manifest(IMAGE.selector) == (MANIFEST, oci.OCI_MANIFEST)

    run(tmp_path, scenario)


def test_a_node_reads_no_image_of_others(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        await nodes.add(stored())
        stranger = identity_of(await site.join())
        await site.state.commit(
            [Put(Service(id="s2", spec=ServiceSpec(name="other"))), Put(task("t2", "elsewhere", service="s2"))]
        )
        for who, service, image in ((stranger, "s1", "app:1"), (identity, "s2", "app:1"), (identity, "s1", "app:2")):
            async with nodes.source(who, service, image) as source:
                for selector in (IMAGE.selector, DIGEST):
                    with pytest.raises(WharfError) as refused:
                        await source.manifest(selector)
                    assert refused.value.kind is Kind.NOT_FOUND
        assert not nodes.images[0].reads

    run(tmp_path, scenario)


def test_a_worker_does_not_say_what_a_tag_is(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        await nodes.add(stored(), manager=False)
        async with nodes.source(identity) as source:
            with pytest.raises(WharfError, match="no manager has the image app:1") as refused:
                await source.manifest(IMAGE.selector)
            assert refused.value.kind is Kind.NOT_FOUND
            assert not nodes.images[0].reads
            digest = nodes.images[0].digest
            assert await source.manifest(digest) == (MANIFEST, oci.OCI_MANIFEST)
        await nodes.add(stored())
        async with nodes.source(identity) as source:
            assert await source.manifest(IMAGE.selector) == (MANIFEST, oci.OCI_MANIFEST)
        assert [len(image.reads) for image in nodes.images] == [1, 1]

    run(tmp_path, scenario)


def test_the_next_node_continues_where_another_fails(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        await nodes.add(stored(broken=2 << 20))
        await nodes.add(stored())
        assert await fetched(tmp_path, nodes.source(identity)) == LAYER
        (digest, offset), *others = nodes.images[1].reads
        assert (digest, others) == (DIGEST, [])
        assert offset > 0

    run(tmp_path, scenario)


def test_other_content_is_refused(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        tampered = LAYER[:-1] + bytes([LAYER[-1] ^ 1])
        await nodes.add(stored(tampered))
        with pytest.raises(WharfError, match=f"verification failed for digest {DIGEST}"):
            await fetched(tmp_path / "alone", nodes.source(identity))
        await nodes.add(stored())
        assert await fetched(tmp_path, nodes.source(identity)) == LAYER
        assert nodes.images[1].reads == [(DIGEST, 0)]

    run(tmp_path, scenario)


def test_a_document_with_another_digest_is_refused(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        false = stored()
        false.contents[false.digest] = b"{}"
        await nodes.add(false)
        async with nodes.source(identity) as source:
            with pytest.raises(WharfError, match="manifest verification failed"):
                await source.manifest(false.digest)

    run(tmp_path, scenario)


def test_managers_name_nodes_that_are_alive(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        joined, managers = await site.worker()
        other, unasked = (await site.join()).node_id, (await site.join()).node_id
        await site.state.commit(
            [Put(Service(id="s1")), Put(task("t1", joined.node_id)), Put(task("t2", other, TaskState.RUNNING))]
        )
        mine = RemoteDispatcher(managers)
        assert await mine.image_peers("s1") == []
        for id in (MANAGER, other, unasked, joined.node_id):
            node = site.state.tables.nodes.get(id)
            await site.dispatcher(id).describe(node.description)
        found = await mine.image_peers("s1")
        assert [each.node_id for each in found] == [other, MANAGER]
        assert [(each.host, each.manager) for each in found] == [("127.0.0.1", False), ("127.0.0.1", True)]
        with pytest.raises(WharfError) as refused:
            await mine.image_peers("s2")
        assert refused.value.kind is Kind.NOT_FOUND
        # Only a node with tasks of the service, or a manager, learns who may read the image.
        assert await mine.readable_images("s1", other) == ["app:1"]
        assert await site.dispatcher(MANAGER).readable_images("s1", other) == ["app:1"]
        with pytest.raises(WharfError) as refused:
            await site.dispatcher(unasked).readable_images("s1", other)
        assert refused.value.kind is Kind.NOT_FOUND

    run(tmp_path, scenario)


def test_readers_are_bounded(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        nodes, identity = Nodes(site), await asker(site)
        release = asyncio.Event()
        image = stored()

        class Slow(Stored):
            async def read(self, digest: str, offset: int) -> AsyncIterator[bytes]:
                self.reads.append((digest, offset))
                yield LAYER[:10]
                await release.wait()

        slow = Slow(image.contents)
        await nodes.add(slow)
        async with nodes.source(identity) as source:

            async def read() -> None:
                async with source.blob(DIGEST) as (_, pieces):
                    async for _ in pieces:
                        pass

            reading = [asyncio.create_task(read()) for _ in range(8)]
            while len(slow.reads) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(WharfError, match="8 streams already"):
                await read()
            release.set()
            await asyncio.gather(*reading)

    run(tmp_path, scenario)
