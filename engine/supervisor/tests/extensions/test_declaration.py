"""The declaration of the extensions, as a client finds it when it connects."""

import asyncio
import os

import pytest

from engine.api.client import Engine
from engine.api.extensions import NONE, PLUGIN_TYPE, RUN_EXEC, Extensions
from engine.api.types import Plugin
from engine.supervisor.extensions import declaration
from engine.supervisor.tests import processes
from engine.supervisor.tests.extensions.ways import PATIENCE

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.root
@ROOT
def test_a_server_declares_them(server: processes.Server) -> None:
    async def main() -> None:
        engine = Engine(server.address)
        try:
            assert engine.extensions == NONE
            await engine.connect(deadline=PATIENCE)
            if server.kind == "containerd":
                assert engine.extensions == NONE
            else:
                path = f"{server.address}.fds"
                assert engine.extensions == Extensions(
                    descriptors=path, applies_ingests=True, runs_execs=True, measures_snapshots=True
                )
            assert engine.content.extensions is engine.diff.extensions is engine.extensions
            assert engine.snapshots.extensions is engine.extensions
        finally:
            await engine.close()

    asyncio.run(main())


def test_a_declaration_is_read_in_parts() -> None:
    other = Plugin("io.containerd.grpc.v1", "tasks", {}, (RUN_EXEC,), "")
    assert Extensions.from_plugins([]) == Extensions.from_plugins([other]) == NONE
    some = Plugin(PLUGIN_TYPE, "wharf", {"descriptors": "/x"}, (RUN_EXEC, "of-a-later-version"), "")
    assert Extensions.from_plugins([other, some]) == Extensions(runs_execs=True)


def test_a_supervisor_without_its_socket_declares_the_others() -> None:
    plugin = declaration("")
    read = Plugin(plugin.type, plugin.id, dict(plugin.exports), tuple(plugin.capabilities), "")
    assert Extensions.from_plugins([read]) == Extensions(applies_ingests=True, runs_execs=True)
