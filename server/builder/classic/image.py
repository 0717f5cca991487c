"""Creates an image from a stage's configuration and layers: configuration and manifest, in the content store."""

import asyncio
import datetime
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from engine.api.client import Engine
from engine.api.types import Descriptor
from server.builder.plan.imageconfig import History, ImageConfig
from server.builder.plan.steps import FILES, SCRATCH, Base, Result, Step
from server.registry import documents, oci

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_AT_ONCE = 500
"""The most entries of a configuration that is encoded on the event loop: some hundred microseconds."""


@dataclass(frozen=True, slots=True)
class Documents:
    """An image's configuration and manifest. ``id`` is the manifest's digest, as for every image of Wharf."""

    config: bytes
    manifest: bytes
    chain_id: str

    @property
    def id(self) -> str:
        return oci.digest_of(self.manifest)

    @property
    def target(self) -> Descriptor:
        """The descriptor that a name of the image refers to."""
        return Descriptor(MANIFEST, self.id, len(self.manifest))


def layer_chain(step: Step | None) -> list[Step]:
    """Return the steps that create layers, base first."""
    found: list[Step] = []
    while step is not None:
        if not isinstance(step.operation, Base):
            found.append(step)
        step = step.parent
    return found[::-1]


async def history_key(config: ImageConfig, last: Step | None, results: Mapping[int, Result]) -> str:
    """Return the key of a history's last line and everything below it (server.builder.plan.instruction_times)."""
    work = functools.partial(_keys, config, last, results)
    return (work() if config.entries <= _AT_ONCE else await asyncio.to_thread(work))[-1]


def _keys(config: ImageConfig, last: Step | None, results: Mapping[int, Result]) -> list[str]:
    """The key of the base, and that of each line of the history that the build added."""
    steps = layer_chain(last)
    below = last if not steps else steps[0].parent
    base = "" if below is None else results[id(below)].chain_id
    key = hashlib.sha256(f"{base} {len(config.base_history)}".encode()).hexdigest()
    waiting = iter(steps)
    found = [key]
    for entry in config.history:
        content = "" if entry.empty_layer else results[id(next(waiting))].chain_id
        key = hashlib.sha256(f"{key}\0{content}\0{entry.created_by}".encode()).hexdigest()
        found.append(key)
    return found


def describe(
    config: ImageConfig,
    last: Step | None,
    results: Mapping[int, Result],
    *,
    now_ns: int,
    epoch_ns: int | None = None,
    times: Mapping[str, int] | None = None,
) -> Documents:
    """Create the documents of a configuration on the result of its last step. ``results``: by ``id(step)``.

    Times come from the layers, so that a cached build gives the same image; ``epoch_ns`` replaces all of them.
    ``times``: those of lines without a layer, by :func:`history_key`; other lines use the time of the layer below.
    """
    result = SCRATCH if last is None else results[id(last)]
    base_ns = _base_time(config) if config.base_diff_ids or config.base_history else 0
    history = _history(config, last, results, base_ns, times)
    if epoch_ns is not None:
        history = [replace(entry, created_ns=epoch_ns) for entry in history]
    created = history[-1].created_ns if history else base_ns
    data = config.encode(result.diff_ids, created_ns=created or now_ns, history=history)
    manifest = encode_manifest(data, [layer.descriptor for layer in result.layers])
    return Documents(data, manifest, result.chain_id)


async def describe_in_thread(
    config: ImageConfig,
    last: Step | None,
    results: Mapping[int, Result],
    *,
    now_ns: int,
    epoch_ns: int | None = None,
    times: Mapping[str, int] | None = None,
) -> Documents:
    """:func:`describe`, in a thread for a long document. ``results`` must not change meanwhile."""
    work = functools.partial(describe, config, last, results, now_ns=now_ns, epoch_ns=epoch_ns, times=times)
    return work() if config.entries <= _AT_ONCE else await asyncio.to_thread(work)


def encode_manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """Encode the manifest of a configuration and its layers."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": oci.to_json(Descriptor(CONFIG, oci.digest_of(config), len(config))),
        "layers": [oci.to_json(layer) for layer in layers],
    }
    return orjson.dumps(manifest)


def _history(
    config: ImageConfig,
    last: Step | None,
    results: Mapping[int, Result],
    base_ns: int,
    times: Mapping[str, int] | None,
) -> list[History]:
    """Return the history with times; lines whose step changed nothing claim no layer."""
    waiting = iter(layer_chain(last))
    keys = _keys(config, last, results)[1:] if times else [""] * len(config.history)
    entries: list[History] = []
    last_ns = base_ns
    for entry, key in zip(config.history, keys, strict=True):
        if times and key in times:
            last_ns = times[key]
        if not entry.empty_layer:
            step = next(waiting)
            result = results[id(step)]
            if FILES in entry.created_by:
                entry = replace(entry, created_by=entry.created_by.replace(FILES, result.files))
            below = results[id(step.parent)].layers if step.parent is not None else ()
            if len(result.layers) > len(below):
                last_ns = result.layers[-1].created_ns
            else:
                entry = replace(entry, empty_layer=True)
        entries.append(replace(entry, created_ns=last_ns))
    if not base_ns:
        # Lines below the first layer have no time: they take that of the first layer.
        first = next((entry.created_ns for entry in entries if entry.created_ns), 0)
        entries = [entry if entry.created_ns else replace(entry, created_ns=first) for entry in entries]
    return entries


def _base_time(config: ImageConfig) -> int:
    return _parse_time(str(config.document.get("created")))


@functools.lru_cache(maxsize=64)
def _parse_time(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since // datetime.timedelta(microseconds=1)) * 1000


async def store(engine: Engine, found: Documents) -> Descriptor:
    """Write the documents, under a lease; return the descriptor that a name of the image refers to."""
    config = await documents.write(engine, found.config, CONFIG)
    if found.chain_id:
        await documents.reference_snapshot(engine, config.digest, found.chain_id)
    return await documents.write(engine, found.manifest, MANIFEST)
