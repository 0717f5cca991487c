"""The GPUs of this host by its CDI specifications.

One GPU has several names: NVIDIA's toolkit declares ``nvidia.com/gpu=0`` and ``nvidia.com/gpu=GPU-8a56…`` with the same
device nodes, and ``nvidia.com/gpu=all`` with those of all GPUs. So names are compared by their device nodes. A name
whose nodes contain no other name's nodes is a GPU (or a partition of one); other names stand for several GPUs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.containers.spec.cdi import Registry

#: The class of CDI devices that are GPUs: ``nvidia.com/gpu``, ``amd.com/gpu``, ``intel.com/gpu``.
_CLASS = "/gpu"
#: NVIDIA's names of MIG devices: the numbers of the GPU and of the partition, or a UUID.
_PARTITION = re.compile(r"[0-9]+:[0-9]+|MIG-.*")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a partition of one. ``names``: all CDI devices with the same nodes; ``name``: the shortest of them.
    ``nodes``: paths on the host; its name if there are none."""

    name: str
    names: tuple[str, ...]
    partition: bool = False
    nodes: frozenset[str] = frozenset()

    def named(self, kind: str) -> str:
        """Its shortest name as a device of this kind; "": it has none."""
        return next((name for name in self.names if kind_of(name) == kind), "")


def kind_of(name: str) -> str:
    """``vendor.com/class`` of a CDI name."""
    return name.partition("=")[0]


def is_gpu(name: str) -> bool:
    """Whether a CDI device is a GPU by its class."""
    return kind_of(name).endswith(_CLASS)


def is_all(name: str) -> bool:
    """Whether a CDI name stands for all devices of its kind."""
    return name.endswith("=all")


class Catalog:
    """The GPUs by name, in natural order: 2 before 10."""

    def __init__(self, nodes: Mapping[str, frozenset[str]] | None = None) -> None:
        """``nodes``: the device nodes of each CDI name of a GPU. A name without nodes is a GPU of its own."""
        nodes = nodes or {}
        several = {kind_of(name) for name in nodes if not is_all(name)}
        # NVIDIA's toolkit declares only "all" where it can't distinguish GPUs (WSL): it is the one GPU then.
        single = {
            name: own or frozenset((name,))
            for name, own in nodes.items()
            if not is_all(name) or kind_of(name) not in several
        }
        smallest = {own for own in single.values() if not any(other < own for other in single.values())}
        gpus = []
        for own in smallest:
            names = sorted((name for name, its in single.items() if its == own), key=lambda each: (len(each), each))
            partition = any(_PARTITION.fullmatch(name.partition("=")[2]) for name in names)
            gpus.append(Gpu(names[0], tuple(names), partition, own))
        gpus.sort(key=lambda gpu: _natural(gpu.name))
        self.gpus: Mapping[str, Gpu] = {gpu.name: gpu for gpu in gpus}
        self._covered = {name: frozenset(gpu.name for gpu in gpus if gpu.nodes <= own) for name, own in single.items()}

    def covered(self, name: str) -> frozenset[str]:
        """The GPUs for which a CDI name (none for all devices) stands, by their names; none: the name is unknown."""
        return self._covered.get(name, frozenset())

    def of_kind(self, kind: str) -> list[Gpu]:
        """The GPUs of which a number can be requested: whole ones; partitions only if there are no others."""
        found = [gpu for gpu in self.gpus.values() if gpu.named(kind)]
        return [gpu for gpu in found if not gpu.partition] or found

    def sorted(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=_natural))


def from_registry(registry: Registry) -> Catalog:
    """The GPUs among all CDI devices."""
    return Catalog({name: registry.nodes(name) for name in registry.names() if is_gpu(name)})


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]
