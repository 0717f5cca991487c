"""What device requests ask of the allocator."""

import json
from pathlib import Path
from typing import Any

import pytest

from api_models.resources import DeviceRequest
from engine.common.errors import Kind, WharfError
from server.containers.spec import cdi
from server.gpus.demand import ALL, Demand, read

NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
GPU = (("gpu",),)


def registry(directory: Path, *kinds: str) -> cdi.Registry:
    for number, kind in enumerate(kinds):
        document = {"cdiVersion": "0.6.0", "kind": kind, "devices": [{"name": "0", "containerEdits": {}}]}
        (directory / f"{number}.json").write_text(json.dumps(document))
    return cdi.load((str(directory),))


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([{"count": 2, "capabilities": GPU}], Demand(counts={NVIDIA: 2})),
        ([{"count": -1, "driver": "amd"}, {"count": 1, "driver": "amd"}], Demand(counts={AMD: ALL})),
        ([{"count": 1, "driver": "nvidia"}, {"count": 1, "capabilities": GPU}], Demand(counts={NVIDIA: 2})),
        ([{"count": 0, "driver": "nvidia"}], Demand()),
        ([{"device_ids": ("0", f"{NVIDIA}=GPU-1", "0"), "capabilities": GPU}],
         Demand((f"{NVIDIA}=0", f"{NVIDIA}=GPU-1"))),
        ([{"device_ids": (f"{AMD}=all", f"{NVIDIA}=0"), "driver": "cdi"}], Demand((f"{NVIDIA}=0",), {AMD: ALL})),
        ([{"device_ids": ("example.com/net=a",), "driver": "cdi"}], Demand(others=("example.com/net=a",))),
    ],
)  # fmt: skip
def test_sums(tmp_path: Path, requests: list[dict[str, Any]], expected: Demand) -> None:
    found = read([DeviceRequest(**each) for each in requests], registry(tmp_path, NVIDIA, AMD))
    assert found == expected
    assert bool(found) is bool(expected.names or expected.counts)


@pytest.mark.parametrize(
    ("request_", "kind", "sentence"),
    [
        ({"count": 1, "driver": "cdi"}, Kind.INVALID_ARGUMENT, "unexpected count in CDI device request"),
        ({"options": {"a": "b"}, "driver": "cdi"}, Kind.INVALID_ARGUMENT, "unexpected options in CDI device request"),
        ({"count": 1, "driver": "amd"}, Kind.INTERNAL, 'could not select device driver "amd" with capabilities: []'),
        ({"count": 1, "device_ids": ("0",), "capabilities": GPU}, Kind.INVALID_ARGUMENT,
         "cannot set both Count and DeviceIDs on device request"),
        ({"count": 1, "driver": "nvidia.runtime-hook"}, Kind.INVALID_ARGUMENT,
         'the device driver "nvidia.runtime-hook" with capabilities: [] uses no CDI devices: '
         "its GPUs can't be allocated"),
    ],
)  # fmt: skip
def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], kind: Kind, sentence: str
) -> None:
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WharfError) as caught:
        read([DeviceRequest(**request_)], registry(tmp_path, NVIDIA))
    assert (caught.value.kind, caught.value.message) == (kind, sentence)
