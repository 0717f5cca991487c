"""Layers that a remote snapshotter provides: the fake's, by an annotation of the layer."""

import asyncio
import json
from pathlib import Path

from engine.api.client import Engine
from engine.api.tests.fake import FakeServer
from engine.api.tests.fake.snapshots import FILES
from engine.api.types import Descriptor, SnapshotKind
from server.registry import documents, lazy, oci
from server.registry.reference import parse

IMAGE = parse("registry.test:5000/team/app:1")
PREFIX = "containerd.io/snapshot/cri."


def digest_of(text: str) -> str:
    return oci.digest_of(text.encode())


class Image:
    """An image of which the content store has all but the layers. The first ``remote`` layers can be provided."""

    def __init__(self, folder: Path, count: int, *, remote: int) -> None:
        folder.mkdir()
        self.layers = tuple(
            Descriptor(
                f"{oci.OCI_LAYER}+gzip",
                digest_of(f"blob {number}"),
                6,
                {FILES: str(folder), "other": "x"} if number < remote else {},
            )
            for number in range(count)
        )
        self.ids = [digest_of(f"layer {number}") for number in range(count)]
        self.names = oci.chain_ids(self.ids)

    async def write(self, engine: Engine) -> None:
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": self.ids}}
        self.config = await documents.write(engine, json.dumps(config).encode(), oci.OCI_CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "config": oci.to_json(self.config),
            "layers": [oci.to_json(layer) for layer in self.layers],
        }
        self.manifest = await documents.write(engine, json.dumps(manifest).encode(), oci.OCI_MANIFEST)

    async def provide(self, engine: Engine) -> int:
        return await lazy.provide(engine, IMAGE, self.manifest, self.layers, self.ids)


async def snapshots(engine: Engine) -> dict[str, SnapshotKind]:
    return {info.name: info.kind async for info in engine.snapshots.walk()}


def test_layers_up_to_the_first_that_is_not_remote(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeServer(tmp_path / "server").client(snapshotter="remote")
        image = Image(tmp_path / "files", 4, remote=2)
        await image.write(engine)
        assert await lazy.origins(engine, image.manifest) == {}
        assert await image.provide(engine) == 2
        # The key of the third layer is removed: it will be unpacked.
        assert await snapshots(engine) == dict.fromkeys(image.names[:2], SnapshotKind.COMMITTED)
        info = await engine.snapshots.stat(image.names[1])
        assert info.parent == image.names[0]
        labels = dict(info.labels)
        assert labels.pop("containerd.io/snapshot.ref") == image.names[1]
        assert labels == {
            FILES: str(tmp_path / "files"),
            f"{PREFIX}image-ref": str(IMAGE),
            f"{PREFIX}manifest-digest": image.manifest.digest,
            f"{PREFIX}layer-digest": image.layers[1].digest,
            f"{PREFIX}image-layers": ",".join(layer.digest for layer in image.layers[1:]),
        }
        assert await image.provide(engine) == 2
        assert await lazy.origins(engine, image.manifest) == {layer.digest: IMAGE for layer in image.layers[:2]}

    asyncio.run(main())


def test_a_layer_in_the_store_has_no_origin(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeServer(tmp_path / "server").client(snapshotter="remote")
        image = Image(tmp_path / "files", 2, remote=2)
        await image.write(engine)
        assert await image.provide(engine) == 2
        await engine.content.write_blob("blob", b"blob 0", digest=image.layers[0].digest)
        assert await lazy.origins(engine, image.manifest) == {image.layers[1].digest: IMAGE}
        absent = {**oci.to_json(image.manifest), "digest": digest_of("another platform")}
        manifests = [absent, oci.to_json(image.manifest)]
        index = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": manifests}
        target = await documents.write(engine, json.dumps(index).encode(), oci.OCI_INDEX)
        assert await lazy.origins(engine, target) == {image.layers[1].digest: IMAGE}

    asyncio.run(main())


def test_a_label_has_no_more_layers_than_its_limit_allows(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeServer(tmp_path / "server").client(snapshotter="remote")
        image = Image(tmp_path / "files", 100, remote=1)
        await image.write(engine)
        assert await image.provide(engine) == 1
        label = (await engine.snapshots.stat(image.names[0])).labels[f"{PREFIX}image-layers"]
        assert 4096 - 72 <= len(f"{PREFIX}image-layers{label}") <= 4096
        assert label.split(",") == [layer.digest for layer in image.layers[: label.count(",") + 1]]

    asyncio.run(main())


def test_a_local_image_asks_again_by_its_source(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeServer(tmp_path / "server").client(snapshotter="remote")
        image = Image(tmp_path / "files", 2, remote=2)
        await image.write(engine)

        async def again() -> None:
            await lazy.provide_again(engine, image.config.digest, image.manifest, image.layers, image.ids)

        await again()
        assert await snapshots(engine) == {}
        await engine.content.update_labels(image.config.digest, {oci.source_label(IMAGE): "team/old,team/app"})
        await again()
        assert tuple(await snapshots(engine)) == image.names
        labels = (await engine.snapshots.stat(image.names[0])).labels
        assert labels[f"{PREFIX}image-ref"] == f"registry.test:5000/team/app@{image.manifest.digest}"

    asyncio.run(main())
