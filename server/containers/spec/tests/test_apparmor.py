"""The default profile is used if it is loaded, loaded if it can be, and else not used."""

from pathlib import Path

import pytest

from server.containers.spec import apparmor


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with AppArmor, but without the default profile and without apparmor_parser."""
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "profiles").write_text("docker-default-not (enforce)\nlsb_release (complain)\n")
    monkeypatch.setattr(apparmor, "_ENABLED", str(tmp_path / "enabled"))
    monkeypatch.setattr(apparmor, "_SECURITYFS", str(tmp_path / "profiles"))
    monkeypatch.setattr(apparmor, "DEFAULT_ENV", {"PATH": str(tmp_path)})
    monkeypatch.delenv("container", raising=False)
    return tmp_path


def parser(host: Path, script: str) -> None:
    program = host / "apparmor_parser"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_kernel_without_apparmor(host: Path) -> None:
    (host / "enabled").unlink()
    assert not apparmor.ensure_default()


def test_no_parser_and_no_profile(host: Path) -> None:
    assert not apparmor.ensure_default()


def test_a_loaded_profile_is_used(host: Path) -> None:
    (host / "profiles").write_text("docker-default (enforce)\n")
    assert apparmor.ensure_default()


def test_the_profile_is_loaded(host: Path) -> None:
    parser(host, f"cat > {host}/got")
    assert apparmor.ensure_default()
    assert "profile docker-default flags=(attach_disconnected,mediate_deleted) {" in (host / "got").read_text()


def test_a_profile_that_the_parser_refuses(host: Path) -> None:
    parser(host, "echo no >&2; exit 1")
    assert not apparmor.ensure_default()
