"""What cAdvisor asks about a container, as its clients of containerd and Docker do.

On an engine whose storage driver is ``overlayfs``, cAdvisor 0.60 asks the Engine API for information and the container,
and containerd's namespace ``moby`` for the container's spec; with ``--containerd-namespace=moby``, also for its task.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from compat_tests.support.engines import Wharf, wharf
from compat_tests.support.protos import Package

grpc = pytest.importorskip("grpc")

CONTAINERS = "containerd.services.containers.v1"
TASKS = "containerd.services.tasks.v1"
VERSION = "containerd.services.version.v1"
#: Of containerd.v1.types.Status.
RUNNING, PAUSED = 2, 4


class Client:
    """Unary calls with the header of the namespace."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def call(self, package: str, service: str, method: str, request: Any, reply: Any) -> Any:
        unary = self._channel.unary_unary(
            f"/{package}.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return unary(request, metadata=(("containerd-namespace", "moby"),), timeout=2)

    def container(self, id: str) -> Any:
        types = Package(CONTAINERS)
        reply = types.GetContainerResponse
        return self.call(CONTAINERS, "Containers", "Get", types.GetContainerRequest(id=id), reply).container

    def process(self, id: str) -> Any:
        types = Package(TASKS)
        return self.call(TASKS, "Tasks", "Get", types.GetRequest(container_id=id), types.GetResponse).process


def ask(engine: Wharf, id: str) -> None:
    info = engine.api.get("/info").json()
    version = engine.api.get("/version").json()
    assert int(info["ServerVersion"].split(".")[0]) >= 1
    assert info["Driver"]
    assert version["ApiVersion"]
    assert engine.api.get("/images/json").status == 200
    shown = engine.api.get(f"/containers/{id}/json").json()
    assert shown["State"]["Running"]
    with grpc.insecure_channel(f"unix:{engine.containerd_address}") as channel:
        client = Client(channel)
        from google.protobuf.empty_pb2 import Empty

        assert client.call(VERSION, "Version", "Version", Empty(), Package(VERSION).VersionResponse).version
        container = client.container(id)
        assert container.id == id
        assert abs(container.created_at.seconds - time.time()) < 600
        assert container.snapshot_key
        assert container.runtime.name
        spec = json.loads(container.spec.value)
        assert spec["root"]["path"]
        assert "SHOWN=1" in spec["process"]["env"]
        process = client.process(id)
        assert (process.pid, process.status) == (shown["State"]["Pid"], RUNNING)
        # The id is the last part of the cgroup's path, with which cAdvisor finds containers.
        with open(f"/proc/{process.pid}/cgroup") as file:
            assert id in file.read()
        engine.docker("pause", id)
        assert client.process(id).status == PAUSED
        engine.docker("unpause", id)
        for call in (client.container, client.process):
            with pytest.raises(grpc.RpcError) as caught:
                call("0" * 64)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_cadvisors_questions_are_answered() -> None:
    with wharf("cadvisor") as engine:
        engine.load_busybox()
        done = engine.docker("run", "-d", "-e", "SHOWN=1", "--network", "none", "busybox", "sleep", "600")
        ask(engine, done.stdout.strip())
