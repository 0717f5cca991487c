"""The client with our supervisor, a stock containerd, and the fake of the unit tests: all three behave the same."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

from engine.api.client import Engine
from engine.api.pb import event_messages_pb2, images_pb2
from engine.api.types import AnyValue, ContainerRecord, Descriptor, ImageRecord
from engine.common.errors import Kind
from engine.supervisor.tests.calls import Connect, Run, fails
from engine.supervisor.tests.processes import digest_of


def test_server_introspection(run: Run) -> None:
    async def body(engine: Engine) -> None:
        assert (await engine.version()).version
        assert (await engine.introspection.server()).uuid
        plugins = await engine.introspection.plugins(['type==io.containerd.snapshotter.v1,id=="native"'])
        assert [(plugin.id, plugin.error) for plugin in plugins] == [("native", "")]

    run(body)


def test_a_lease_is_released_after_any_cancellation(run: Run) -> None:
    async def hold(engine: Engine) -> None:
        async with engine.leases.acquire():
            pass

    async def pieces(engine: Engine) -> AsyncIterator[bytes]:
        async with engine.leases.acquire():
            yield b"a piece"

    async def leave(engine: Engine) -> None:
        async for _ in pieces(engine):
            return

    async def body(engine: Engine) -> None:
        for steps in range(40):
            holder = asyncio.create_task(hold(engine))
            for _ in range(steps):
                await asyncio.sleep(0)
            holder.cancel()
            await asyncio.wait((holder,))
        # Only the loop closes this generator.
        await asyncio.create_task(leave(engine))
        for _ in range(600):
            if not (left := await engine.leases.list()):
                break
            await asyncio.sleep(0.1)
        assert not left

    run(body)


def test_image_records(run: Run) -> None:
    async def body(engine: Engine) -> None:
        target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(b"m"), 1, {"x": "y"})
        made = await engine.images.create(ImageRecord("docker.io/library/a:1", target, {"kind": "old"}))
        assert made.created_at_ns
        assert made.target == target
        await fails(Kind.ALREADY_EXISTS, engine.images.create(ImageRecord("docker.io/library/a:1", target)))
        other = Descriptor("application/vnd.oci.image.index.v1+json", digest_of(b"n"), 2)
        await engine.images.create(ImageRecord("docker.io/library/b:1", other))
        updated = await engine.images.update(ImageRecord("docker.io/library/a:1", other), fields=["target"])
        assert (updated.target, dict(updated.labels)) == (other, {"kind": "old"})
        by_digest = await engine.images.list([f"target.digest=={other.digest}"])
        assert [image.name for image in by_digest] == ["docker.io/library/a:1", "docker.io/library/b:1"]
        by_name = await engine.images.list(["name~=/b:[0-9]+$/", 'labels."kind"==new'])
        assert [image.name for image in by_name] == ["docker.io/library/b:1"]
        error = await fails(Kind.INVALID_ARGUMENT, engine.images.list(["name=~x"]))
        assert "operator" in error.message
        await engine.images.delete("docker.io/library/a:1", sync=True)
        await fails(Kind.NOT_FOUND, engine.images.get("docker.io/library/a:1"))

    run(body)


def test_container_records(run: Run) -> None:
    async def body(engine: Engine) -> None:
        options = AnyValue("containerd.runc.v1.Options", b"\x32\x04runc")
        record = ContainerRecord(
            "box-1",
            image="docker.io/library/a:1",
            labels={"a": "1"},
            runtime_options=options,
            spec={"ociVersion": "1.1.0", "hostname": "x", "nested": {"list": [1, 2]}},
            extensions={"io.wharf": AnyValue("io.wharf.Thing", b"bytes")},
        )
        made = await engine.containers.create(record)
        assert made.created_at_ns
        found = await engine.containers.get("box-1")
        assert (found.spec, found.runtime_options, found.extensions) == (record.spec, options, record.extensions)
        await fails(Kind.ALREADY_EXISTS, engine.containers.create(record))
        changed = await engine.containers.update(
            ContainerRecord("box-1", labels={"b": "2"}, spec={"hostname": "y"}), fields=["labels.b", "spec"]
        )
        assert (dict(changed.labels), changed.spec, changed.image) == (
            {"a": "1", "b": "2"},
            {"hostname": "y"},
            "docker.io/library/a:1",
        )
        assert [one.id for one in await engine.containers.list(["labels.b==2"])] == ["box-1"]
        assert await engine.containers.list(["runtime.name==other"]) == []
        await fails(Kind.INVALID_ARGUMENT, engine.containers.create(ContainerRecord("../x", spec={"a": 1})))
        await engine.containers.delete("box-1")
        await fails(Kind.NOT_FOUND, engine.containers.delete("box-1"))

    run(body)


def test_namespaces_separate_their_objects(connect: Connect, run: Run) -> None:
    async def body(engine: Engine) -> None:
        name = f"n{uuid4().hex[:12]}"
        await engine.namespaces.create(name, {"a": "1"})
        await fails(Kind.ALREADY_EXISTS, engine.namespaces.create(name))
        other = connect(name, "overlayfs")
        try:
            await other.images.create(ImageRecord("x:1", Descriptor("m", digest_of(b"m"), 1)))
            assert await engine.images.list() == []
            await fails(Kind.FAILED_PRECONDITION, engine.namespaces.delete(name))
            await other.images.delete("x:1", sync=True)
        finally:
            await other.close()
        await engine.namespaces.update_labels(name, {"b": "2", "a": None})
        assert (await engine.namespaces.list())[name] == {"b": "2"}
        await engine.namespaces.delete(name)
        assert await engine.namespaces.get(name) == {}
        assert name not in await engine.namespaces.list()
        await fails(Kind.NOT_FOUND, engine.namespaces.delete(name))

    run(body)


def test_unreferenced_objects_are_collected(connect: Connect, run: Run) -> None:
    """A manifest under an image references its layer and, by label, a snapshot; without the image all are collected."""

    async def body(engine: Engine) -> None:
        manifest, layer, loose = b"manifest", b"layer", b"loose"
        async with engine.leases.acquire(ttl=timedelta(hours=1)) as lease:
            await engine.content.write_blob("l", layer, digest=digest_of(layer))
            await engine.content.write_blob(
                "m",
                manifest,
                digest=digest_of(manifest),
                labels={
                    "containerd.io/gc.ref.content.l.0": digest_of(layer),
                    "containerd.io/gc.ref.snapshot.native": "top",
                },
            )
            await engine.content.write_blob("x", loose, digest=digest_of(loose))
            native = connect(engine.namespace, "native")
            await native.snapshots.prepare("k", "")
            await native.snapshots.commit("below", "k")
            await native.snapshots.prepare("k", "below")
            await native.snapshots.commit("top", "k")
            target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(manifest), len(manifest))
            await engine.images.create(ImageRecord("kept:1", target))
            held = {(one.type, one.id) for one in await engine.leases.resources(lease.id)}
            assert {("content", digest_of(loose)), ("snapshots/native", "top")} <= held
        other = await engine.leases.create()
        await engine.leases.delete(other.id, sync=True)
        await fails(Kind.NOT_FOUND, engine.content.info(digest_of(loose)))
        assert await engine.content.read_all(digest_of(layer)) == layer
        assert {info.name async for info in native.snapshots.walk()} == {"below", "top"}
        await engine.images.delete("kept:1", sync=True)
        assert [info async for info in engine.content.walk()] == []
        assert [info async for info in native.snapshots.walk()] == []
        await native.close()

    run(body)


def test_events_come_in_order_and_by_filter(run: Run) -> None:
    async def body(engine: Engine) -> None:
        here = f'namespace=="{engine.namespace}"'
        wanted = (f'{here},topic~="^/(containers|namespaces)/"', f"{here},event.name==docker.io/library/e:2")
        async with engine.events.subscribe(*wanted) as subscription:
            for number in (1, 2):
                target = Descriptor("m", digest_of(b"m"), 1)
                await engine.images.create(ImageRecord(f"docker.io/library/e:{number}", target, {"n": str(number)}))
            await engine.containers.create(ContainerRecord("c", spec={"a": 1}))
            await engine.containers.delete("c")
            await engine.events.publish("/containers/own", event_messages_pb2.TaskOOM(container_id="c"))
            async with asyncio.timeout(60):
                events = [await anext(subscription) for _ in range(4)]
        assert [event.topic for event in events] == [
            "/images/create",
            "/containers/create",
            "/containers/delete",
            "/containers/own",
        ]
        assert isinstance(events[0].event, images_pb2.ImageCreate)
        assert dict(events[0].event.labels) == {"n": "2"}
        assert events[3].event == event_messages_pb2.TaskOOM(container_id="c")
        await fails(Kind.INVALID_ARGUMENT, engine.events.publish("no/slash", event_messages_pb2.TaskOOM()))

    run(body)


def test_calls_without_a_namespace_or_with_a_bad_one_are_refused(connect: Connect) -> None:
    async def main() -> None:
        engine = connect("../x", "overlayfs")
        try:
            await fails(Kind.INVALID_ARGUMENT, engine.images.list())
        finally:
            await engine.close()

    asyncio.run(main())
