"""What a node tells about itself."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast

from api_models.swarm.node import PluginDescription
from api_models.swarm.task import DiscreteResource, GenericResource, NamedResource
from server.swarm.agent.description import describe
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.tests.fakes import FakeOverlay
from server.swarm.model.objects import ESP, Node

INFO = {
    "Name": "lab1",
    "Architecture": "x86_64",
    "OSType": "linux",
    "NCPU": 2,
    "MemTotal": 1 << 30,
    "ServerVersion": "29.0.0",
    "Labels": ["disk=ssd", "bare"],
    "Plugins": {"Volume": ["local"], "Network": ["host", "bridge"], "Authorization": None, "Log": ["json-file"]},
    "GenericResources": [
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
        {"NamedResourceSpec": {"Kind": "fpga", "Value": "a"}},
    ],
}


class FakeSystem:
    async def info(self) -> dict[str, Any]:
        return INFO


def _neighbours(cdi: Path, overlay: FakeOverlay | None = None) -> Neighbours:
    absent = cast(Any, None)
    return Neighbours(absent, absent, absent, absent, FakeSystem(), cdi, overlay, cdi_spec_dirs=(str(cdi),))


def test_a_node_tells_whether_it_encrypts(tmp_path: Path) -> None:
    for esp in (True, False):
        node = asyncio.run(describe(_neighbours(tmp_path, FakeOverlay(esp=esp))))
        assert (ESP in (node.engine.plugins or ())) is esp
        assert Node(description=node).encrypts is esp


def test_a_node_with_gpus(tmp_path: Path) -> None:
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{number}"} for number in numbers]}}
        for name, numbers in (("0", (0,)), ("1", (1,)), ("GPU-abc", (0,)), ("all", (0, 1)))
    ]
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    (tmp_path / "nvidia.json").write_text(json.dumps(spec))
    node = asyncio.run(describe(_neighbours(tmp_path)))
    assert (node.hostname, node.platform.architecture, node.platform.os) == ("lab1", "x86_64", "linux")
    assert (node.resources.nano_cpus, node.resources.memory_bytes) == (2_000_000_000, 1 << 30)
    assert node.resources.generic_resources == (
        GenericResource(discrete_resource_spec=DiscreteResource(kind="ssd", value=3)),
        GenericResource(named_resource_spec=NamedResource(kind="fpga", value="a")),
        GenericResource(named_resource_spec=NamedResource(kind="nvidia.com/gpu", value="0")),
        GenericResource(named_resource_spec=NamedResource(kind="nvidia.com/gpu", value="1")),
    )
    assert (node.engine.engine_version, node.engine.labels) == ("29.0.0", {"disk": "ssd"})
    assert node.engine.plugins == tuple(
        PluginDescription(type=kind, name=name)
        for kind, name in (
            ("Log", "json-file"),
            ("Network", "bridge"),
            ("Network", "host"),
            ("Network", "overlay"),
            ("Volume", "local"),
        )
    )
