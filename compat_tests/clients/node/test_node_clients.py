"""dockerode, the client below most Node.js tools, and Testcontainers for Node.js."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from compat_tests.support import npm
from compat_tests.support.engines import Engine

SCRIPTS = Path(__file__).parent


@pytest.fixture(scope="module")
def modules() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    return npm.modules()


def test_dockerode(engine: Engine, modules: Path, tmp_path: Path) -> None:
    script = SCRIPTS / "dockerode.js"
    name = f"node{uuid.uuid4().hex[:10]}"
    engine.run("node", str(script), str(engine.resources.socket), name, str(tmp_path), env={"NODE_PATH": str(modules)})


@pytest.mark.usefixtures("remove_new_images")
def test_testcontainers(engine: Engine, modules: Path, tmp_path: Path) -> None:
    """Wait strategies, copies, networks, restart and a build, without the container that removes leftovers."""
    env = {"NODE_PATH": str(modules), "TESTCONTAINERS_RYUK_DISABLED": "true"}
    engine.run_in_netns("node", str(SCRIPTS / "testcontainers.js"), str(tmp_path), env=env)
