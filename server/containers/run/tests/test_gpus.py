"""How a device request selects a driver of GPUs, with specifications of made-up CDI devices and made-up programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api_models.resources import DeviceRequest
from engine.common.errors import Kind, WharfError
from server.containers.run import gpus

HOOK, CDI_HOOK, AMD_RUNTIME = "nvidia-container-runtime-hook", "nvidia-cdi-hook", "amd-container-runtime"
NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
#: Makes a host with programs and CDI kinds, each with the devices all, 0, 1; returns the spec after a request.
Host = Callable[..., Callable[..., dict[str, Any]]]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    programs, specifications = tmp_path / "bin", tmp_path / "cdi"
    programs.mkdir()
    specifications.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def make(*parts: str) -> Callable[..., dict[str, Any]]:
        for part in parts:
            if "/" in part:
                edits = [(name, {"env": [f"CDI_{name}={part}"]}) for name in ("all", "0", "1")]
                devices = [{"name": name, "containerEdits": edit} for name, edit in edits]
                document = {"cdiVersion": "0.6.0", "kind": part, "devices": devices}
                (specifications / f"{part.partition('.')[0]}.json").write_text(json.dumps(document))
            else:
                (programs / part).write_text("#!/bin/sh\n")
                (programs / part).chmod(0o755)

        def ask(**request: Any) -> dict[str, Any]:
            spec: dict[str, Any] = {"process": {"env": [], "user": {}}, "linux": {"resources": {}}, "mounts": []}
            gpus.inject((str(specifications),), DeviceRequest(**request), spec)
            return spec

        return ask

    return make


def environment(spec: dict[str, Any]) -> list[str]:
    found: list[str] = spec["process"]["env"]
    return found


GPU = (("gpu",),)


@pytest.mark.parametrize(
    ("parts", "request_", "env"),
    [
        ([NVIDIA, CDI_HOOK], {"count": -1, "capabilities": GPU}, [f"CDI_all={NVIDIA}"]),
        ([NVIDIA], {"count": 2, "capabilities": GPU}, [f"CDI_0={NVIDIA}", f"CDI_1={NVIDIA}"]),
        ([NVIDIA, CDI_HOOK, HOOK], {"device_ids": ("1",), "driver": "nvidia"}, [f"CDI_1={NVIDIA}"]),
        ([NVIDIA], {"device_ids": (f"{NVIDIA}=0",), "driver": "nvidia.cdi"}, [f"CDI_0={NVIDIA}"]),
        # The legacy hook: if it is named, if CDI has no such device, or alone.
        ([NVIDIA, HOOK], {"count": 1, "driver": "nvidia.runtime-hook"}, ["NVIDIA_VISIBLE_DEVICES=0"]),
        ([NVIDIA, HOOK], {"device_ids": ("1", "7"), "driver": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=1,7"]),
        ([CDI_HOOK, HOOK], {"count": -1, "capabilities": GPU}, ["NVIDIA_VISIBLE_DEVICES=all"]),
        (
            [HOOK],
            {"count": -1, "capabilities": (("gpu", "video", "utility"),)},
            ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=video,utility"],
        ),
        # A named driver ignores capabilities that it lacks; a count of 0 asks for nothing.
        ([HOOK], {"count": 1, "driver": "nvidia", "capabilities": (("tpu",),)}, ["NVIDIA_VISIBLE_DEVICES=0"]),
        ([HOOK], {"driver": "nvidia"}, []),
        ([NVIDIA], {"driver": "nvidia"}, []),
        # AMD
        ([AMD], {"count": -1, "capabilities": GPU}, [f"CDI_all={AMD}"]),
        ([AMD], {"device_ids": ("0",), "capabilities": (("gpu", "amd"),)}, [f"CDI_0={AMD}"]),
        ([AMD, NVIDIA], {"count": 1, "capabilities": GPU}, [f"CDI_0={NVIDIA}"]),
        ([AMD, NVIDIA], {"count": 1, "driver": "amd"}, [f"CDI_0={AMD}"]),
        ([AMD_RUNTIME], {"count": 2, "capabilities": GPU}, ["AMD_VISIBLE_DEVICES=0,1"]),
        ([AMD, AMD_RUNTIME], {"device_ids": ("0", "9"), "driver": "amd"}, ["AMD_VISIBLE_DEVICES=0,9"]),
        ([AMD_RUNTIME], {"driver": "amd"}, ["AMD_VISIBLE_DEVICES=void"]),
    ],
)  # fmt: skip
def test_selection(host: Host, parts: list[str], request_: dict[str, Any], env: list[str]) -> None:
    spec = host(*parts)(**request_)
    assert environment(spec) == env
    hooks = [hook["args"] for hook in spec.get("hooks", {}).get("prestart", ())]
    assert hooks == ([[HOOK, "prestart"]] if any(word.startswith("NVIDIA_VISIBLE") for word in env) else [])


@pytest.mark.parametrize(
    ("parts", "request_", "kind", "sentence"),
    [
        ([], {"count": 1, "capabilities": GPU}, Kind.INTERNAL,
         'could not select device driver "" with capabilities: [[gpu]]'),
        ([NVIDIA], {"count": 1, "capabilities": (("gpu", "tpu"), ("x",))}, Kind.INTERNAL,
         'could not select device driver "" with capabilities: [[gpu tpu] [x]]'),
        ([NVIDIA], {"count": 1}, Kind.INTERNAL, 'could not select device driver "" with capabilities: []'),
        ([NVIDIA], {"count": 1, "driver": "amd"}, Kind.INTERNAL,
         'could not select device driver "amd" with capabilities: []'),
        ([NVIDIA], {"count": 1, "device_ids": ("0",), "capabilities": GPU}, Kind.INVALID_ARGUMENT,
         "cannot set both Count and DeviceIDs on device request"),
        ([NVIDIA], {"device_ids": ("0", "7"), "capabilities": GPU}, Kind.INTERNAL,
         f"CDI device injection failed: unresolvable CDI devices {NVIDIA}=7"),
    ],
)  # fmt: skip
def test_refusals(host: Host, parts: list[str], request_: dict[str, Any], kind: Kind, sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        host(*parts)(**request_)
    assert (caught.value.kind, caught.value.message) == (kind, sentence)


def test_a_failed_way_leaves_no_trace(host: Host, tmp_path: Path) -> None:
    """The first device of the specification is injected before the second, whose node does not exist, fails."""
    ask = host(HOOK)
    edits = [{"env": ["FIRST=1"]}, {"deviceNodes": [{"path": str(tmp_path / "none")}]}]
    devices = [{"name": str(number), "containerEdits": edit} for number, edit in enumerate(edits)]
    document = {"cdiVersion": "0.6.0", "kind": NVIDIA, "devices": devices}
    (tmp_path / "cdi" / "nvidia.json").write_text(json.dumps(document))
    assert environment(ask(count=2, driver="nvidia")) == ["NVIDIA_VISIBLE_DEVICES=0,1"]
