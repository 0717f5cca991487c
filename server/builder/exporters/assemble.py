"""Assembles an image from results in the content store: a manifest, or an index of several platforms and their
attestations."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.api.client import Engine
from engine.api.types import Descriptor, Platform
from engine.common import jsontext
from engine.common.errors import invalid
from server.builder.cache import cache_config
from server.builder.exporters.export_options import DOCKER_TYPES, ExportOptions
from server.builder.exporters.provenance import Origins, attestation, statement
from server.builder.jobs.job import SolvedTarget
from server.builder.operations.conversion import MEDIA_TYPES, convert
from server.builder.plan.imageconfig import utc
from server.builder.plan.steps import Layer, Result
from server.registry import documents, oci

UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class Assembler:
    """``scratch``: a directory for layers that are converted."""

    engine: Engine
    scratch: str

    async def image(
        self,
        made: Sequence[SolvedTarget],
        options: ExportOptions,
        *,
        names: Sequence[str] = (),
        inline_cache: bool = False,
        origins: Callable[[SolvedTarget], Origins] | None = None,
    ) -> Descriptor:
        """Return the descriptor of the image. Under a lease. ``origins``: provenance to attach to the image.

        Raises INVALID_ARGUMENT for annotations on an index if the image has no index.
        """
        entries: list[dict[str, object]] = []
        attested: list[dict[str, object]] = []
        single: Descriptor | None = None
        indexed = len(made) > 1 or origins is not None
        if not indexed and (options.annotations_of("index") or options.annotations_of("manifest-descriptor")):
            raise invalid("index annotations not supported for single platform export")
        for item in made:
            single = await self._manifest(item, options, inline_cache=inline_cache)
            platform = oci.parse_platform(item.platform)
            entry = {**oci.to_json(single), "platform": oci.platform_json(platform)}
            notes = options.annotations_of("manifest-descriptor", item.platform)
            entries.append({**entry, "annotations": notes} if notes else entry)
            if origins is not None:
                attested.append(await self._attestation(origins(item), names, single))
        if not indexed:
            assert single is not None
            return single
        index: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": self._type(options, oci.OCI_INDEX),
            "manifests": [*entries, *attested],
        }
        if options.annotations_of("index"):
            index["annotations"] = options.annotations_of("index")
        return await documents.write(self.engine, _json(index), str(index["mediaType"]))

    async def _attestation(self, origins: Origins, names: Sequence[str], image: Descriptor) -> dict[str, object]:
        data = statement(origins, names, image.digest)
        config, manifest = attestation(data)
        # Write the statement first: the collector must not remove what refers to it.
        await documents.write(self.engine, data, "application/vnd.in-toto+json")
        await documents.write(self.engine, config, oci.OCI_CONFIG)
        written = await documents.write(self.engine, manifest, oci.OCI_MANIFEST)
        notes = {oci.ATTESTATION_OF: image.digest, oci.ATTESTATION: oci.ATTESTATION_MANIFEST}
        return {**oci.to_json(written), "annotations": notes, "platform": oci.platform_json(UNKNOWN)}

    async def _manifest(self, made: SolvedTarget, options: ExportOptions, *, inline_cache: bool) -> Descriptor:
        config, layers = made.documents.config, list(made.layers)
        chain = made.documents.chain_id
        converted = [await self._layer(made, layer, number, options) for number, layer in enumerate(layers)]
        document = jsontext.loads(config)
        if converted != layers:
            document["rootfs"]["diff_ids"] = [layer.diff_id for layer in converted]
            chain = oci.chain_ids(document["rootfs"]["diff_ids"])[-1] if converted else ""
        if inline_cache:
            data = cache_config.write_inline(_with(made, converted))
            document[cache_config.INLINE] = base64.b64encode(data).decode()
        if options.epoch_ns is not None:
            document["created"] = utc(options.epoch_ns)
            document["history"] = [{**entry, "created": document["created"]} for entry in document["history"]]
        if converted != layers or inline_cache or options.epoch_ns is not None:
            config = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        manifest_type = self._type(options, oci.OCI_MANIFEST)
        config_type = self._type(options, oci.OCI_CONFIG)
        stored = await documents.write(self.engine, config, config_type)
        if chain and chain == made.documents.chain_id:
            await documents.reference_snapshot(self.engine, stored.digest, chain)
        manifest: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": oci.to_json(stored),
            "layers": [
                {**oci.to_json(layer.descriptor), "mediaType": self._type(options, layer.descriptor.media_type)}
                for layer in converted
            ],
        }
        notes = options.annotations_of("manifest", made.platform)
        if notes:
            manifest["annotations"] = notes
        return await documents.write(self.engine, _json(manifest), manifest_type)

    async def _layer(self, made: SolvedTarget, layer: Layer, number: int, options: ExportOptions) -> Layer:
        """Return the layer converted as requested: new layers get the times, forced compression applies to all."""
        own = number >= made.base_layers
        clamp = made.epoch_ns if options.rewrite_times and own else None
        compression = options.compression if own or options.force else None
        same = compression is None or layer.descriptor.media_type == MEDIA_TYPES[compression]
        if clamp is None and same:
            return layer
        kind = compression or next((k for k, v in MEDIA_TYPES.items() if v == layer.descriptor.media_type), None)
        if kind is None:
            return layer
        return await convert(self.engine, layer, self.scratch, compression=kind, clamp_ns=clamp)

    @staticmethod
    def _type(options: ExportOptions, media_type: str) -> str:
        return media_type if options.oci_types else DOCKER_TYPES.get(media_type, media_type)


def _with(made: SolvedTarget, layers: Sequence[Layer]) -> list[Result]:
    """The results of a chain, with the layers as they are in the image."""
    return [replace(result, layers=tuple(layers[: len(result.layers)])) for result in made.chain]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
