"""The GPUs that a host has by the names and device nodes of CDI specifications."""

import pytest

from server.gpus.catalog import Catalog, is_gpu

NVIDIA = "nvidia.com/gpu"


def catalog(kind: str = NVIDIA, **nodes: str) -> Catalog:
    return Catalog({f"{kind}={name}": frozenset(words.split()) for name, words in nodes.items()})


def nvidia(count: int) -> Catalog:
    """As `nvidia-ctk cdi generate` declares them: by number, by UUID, and all together."""
    single = {str(number): f"/dev/nvidia{number}" for number in range(count)}
    uuids = {f"GPU-{number}": nodes for number, nodes in single.items()}
    return catalog(**single, **uuids, all=" ".join(single.values()))


def test_names_of_one_gpu_have_the_same_nodes() -> None:
    found = nvidia(12)
    assert list(found.gpus) == [f"{NVIDIA}={number}" for number in range(12)]
    assert found.gpus[f"{NVIDIA}=3"].names == (f"{NVIDIA}=3", f"{NVIDIA}=GPU-3")
    assert found.covered(f"{NVIDIA}=GPU-3") == {f"{NVIDIA}=3"}
    assert found.covered(f"{NVIDIA}=all") == frozenset()
    assert found.covered(f"{NVIDIA}=12") == frozenset()
    assert len(found.of_kind(NVIDIA)) == 12
    assert found.of_kind("amd.com/gpu") == []


def test_partitions_share_a_node_and_are_different() -> None:
    parts = {"0:0": "/dev/nvidia0 /dev/caps/1", "0:1": "/dev/nvidia0 /dev/caps/2"}
    found = catalog(**parts, all="/dev/nvidia0 /dev/caps/1 /dev/caps/2")
    assert [gpu.name for gpu in found.of_kind(NVIDIA)] == [f"{NVIDIA}=0:0", f"{NVIDIA}=0:1"]
    assert all(gpu.partition for gpu in found.gpus.values())
    # A number of GPUs is a number of whole ones, where there are some.
    mixed = catalog(**parts, **{"1": "/dev/nvidia1"})
    assert [gpu.name for gpu in mixed.of_kind(NVIDIA)] == [f"{NVIDIA}=1"]
    # The whole GPU contains its partitions.
    whole = catalog(**parts, **{"0": "/dev/nvidia0"})
    assert {whole.covered(f"{NVIDIA}={name}") for name in ("0", "0:0", "0:1")} == {frozenset((f"{NVIDIA}=0",))}


def test_names_of_several_gpus() -> None:
    nodes = {"card0": "/dev/dri/card0", "card1": "/dev/dri/card1", "pair": "/dev/dri/card0 /dev/dri/card1"}
    found = catalog("amd.com/gpu", **nodes)
    assert found.covered("amd.com/gpu=pair") == {"amd.com/gpu=card0", "amd.com/gpu=card1"}


def test_devices_without_nodes() -> None:
    found = catalog(a="", b="", all="")
    assert list(found.gpus) == [f"{NVIDIA}=a", f"{NVIDIA}=b"]


def test_a_kind_with_only_all_has_one_gpu() -> None:
    assert [gpu.name for gpu in catalog(all="/dev/dxg").of_kind(NVIDIA)] == [f"{NVIDIA}=all"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia.com/gpu=0", True),
        ("intel.com/gpu=card0", True),
        ("example.com/net=gpu", False),
        ("x.com/gpu2=0", False),
    ],
)
def test_gpus_by_class(name: str, expected: bool) -> None:
    assert is_gpu(name) is expected
