"""What this node is: platform, resources, plugins, labels."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from api_models.swarm.node import EngineDescription, NodeDescription, PluginDescription
from api_models.swarm.task import GenericResource, NamedResource, Platform, Resources
from server.containers.spec import cdi
from server.gpus.catalog import from_registry, kind_of
from server.swarm.agent.neighbours import Neighbours
from server.swarm.model.objects import ESP


async def describe(neighbours: Neighbours) -> NodeDescription:
    """The description of this node. Its GPUs, by CDI, are generic resources: the kind is ``vendor.com/gpu``, the units
    are the GPUs' names."""
    info = await neighbours.system.info()
    gpus = await asyncio.to_thread(_gpus, neighbours.cdi_spec_dirs)
    plugins = _plugins(info["Plugins"])
    if neighbours.overlay is not None and await neighbours.overlay.can_encrypt():
        plugins = (*plugins, ESP)
    generic = (*map(GenericResource.parse, info["GenericResources"] or ()), *gpus)
    return NodeDescription(
        hostname=info["Name"],
        platform=Platform(architecture=info["Architecture"], os=info["OSType"]),
        resources=Resources(
            nano_cpus=info["NCPU"] * 1_000_000_000,
            memory_bytes=info["MemTotal"],
            generic_resources=generic or None,
        ),
        engine=EngineDescription(
            engine_version=info["ServerVersion"],
            labels=_labels(info.get("Labels") or ()),
            plugins=plugins,
        ),
    )


def _labels(labels: Iterable[str]) -> dict[str, str] | None:
    return dict(label.split("=", 1) for label in labels if "=" in label) or None


def _plugins(found: Mapping[str, Sequence[str] | None]) -> tuple[PluginDescription, ...]:
    """The plugins and built-in drivers; ``overlay`` is the only driver of networks on several nodes."""
    pairs = {("Network", "overlay")}
    for kind in ("Volume", "Network", "Authorization", "Log"):
        pairs |= {(kind, name) for name in found.get(kind) or ()}
    return tuple(PluginDescription(type=kind, name=name) for kind, name in sorted(pairs))


def _gpus(directories: tuple[str, ...]) -> tuple[GenericResource, ...]:
    """Blocks."""
    catalog = from_registry(cdi.load(directories))
    return tuple(
        GenericResource(named_resource_spec=NamedResource(kind=kind_of(name), value=name.partition("=")[2]))
        for name in catalog.sorted(catalog.gpus)
    )
