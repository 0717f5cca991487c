"""Which compose files may be run: those that an administrator's containers name, when they are on this machine."""

from pathlib import Path

import pytest

from engine.common.errors import WharfError
from server.tests.api.victim import ALICE, restrict
from server.tests.daemon import Daemon
from server.ui import compose
from server.ui.tests.visitor import Visitor

PROJECT = "com.docker.compose.project"


def labels(directory: Path, *files: Path) -> dict[str, str]:
    return {
        PROJECT: "shop",
        f"{PROJECT}.working_dir": str(directory),
        f"{PROJECT}.config_files": ",".join(map(str, files)),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "compose.yaml"
    found.write_text("services: {}\n")
    return found


def test_a_project_is_found_by_its_labels(daemon: Daemon, tmp_path: Path, file: Path) -> None:
    daemon.load("busybox:latest")
    daemon.create("web", Labels=labels(tmp_path, file))
    found = compose.find("shop", daemon.services.containers.visible)
    assert found.arguments() == [
        *("--project-name", "shop", "--project-directory", str(tmp_path), "--file", str(file)),
    ]


@pytest.mark.parametrize("name", ["missing.yaml", "../relative.yaml", ""])
def test_files_that_are_not_here_are_named(daemon: Daemon, tmp_path: Path, name: str) -> None:
    daemon.load("busybox:latest")
    path = tmp_path / name if name == "missing.yaml" else Path(name)
    daemon.create("web", Labels=labels(tmp_path, *([path] if name else [])))
    with pytest.raises(WharfError, match="on this machine"):
        compose.find("shop", daemon.services.containers.visible)


def test_the_labels_of_users_are_not_followed(daemon: Daemon, visitor: Visitor, tmp_path: Path, file: Path) -> None:
    daemon.load("busybox:latest")
    restrict(daemon)
    alice = daemon.as_uid(ALICE)
    alice.load("busybox:latest")
    alice.create("web", Labels=labels(tmp_path, file))
    root = visitor.log_in(daemon.as_uid(0).post("/wharf/v1/ui/login").json()["Path"])
    answer = root.ask("POST", "/compose", json={"project": "shop", "action": "up"})
    assert answer.status_code == 404
    assert "administrator" in answer.json()["message"]


def test_only_known_actions_are_run(visitor: Visitor) -> None:
    visitor.log_in()
    for body in ({"project": "shop"}, {"project": "shop", "action": "rm"}, {"project": 1, "action": "up"}):
        assert visitor.ask("POST", "/compose", json=body).status_code == 400
    assert visitor.ask("POST", "/compose", json={"project": "shop", "action": "up"}).status_code == 404
