"""``userns-remap``: names and id ranges."""

import grp
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.ids import OVERFLOW, IdMapping, IdMaps
from server.config import remap
from server.config.model import Config
from server.config.types import ConfigError

pytestmark = pytest.mark.root


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A data root that is accessible to everybody, and subordinate id files for the user ``daemon``."""
    for part in (tmp_path, *list(tmp_path.parents)[:2]):
        part.chmod(0o711)
    uids, gids = tmp_path / "subuid", tmp_path / "subgid"
    number = pwd.getpwnam("daemon").pw_uid
    uids.write_text(f"# a comment\n\nother:100000:65536\ndaemon:500000:10\n{number}:300000:1000\n")
    gids.write_text("daemon:700000:65536\nusers:800000:65536\n")
    monkeypatch.setattr(remap, "SUBUID", str(uids))
    monkeypatch.setattr(remap, "SUBGID", str(gids))
    return Config(data_root=tmp_path / "data", userns_remap="daemon")


def test_ranges_in_the_hosts_order(config: Config) -> None:
    found = remap.remapped(config)
    assert found.id_maps == IdMaps(
        (IdMapping(0, 300000, 1000), IdMapping(1000, 500000, 10)), (IdMapping(0, 700000, 65536),)
    )
    assert found.data_root == config.data_root / "300000.700000"
    info = found.data_root.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o710, 0, 700000)


def test_numbers_and_another_group(config: Config) -> None:
    user, group = pwd.getpwnam("daemon").pw_uid, grp.getgrnam("users").gr_gid
    found = remap.remapped(replace(config, userns_remap=f"{user}:{group}")).id_maps
    assert found is not None
    assert found.root == (300000, 800000)
    assert found.to_host(1005, 7) == (500005, 800007)
    assert found.to_container(500005, 800007) == (1005, 7)
    assert found.to_container(0, 0) == (OVERFLOW, OVERFLOW)
    with pytest.raises(ValueError, match="cannot be mapped"):
        found.to_host(1010, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuchuser", 'Error during uid lookup for "nosuchuser"'),
        ("4000000", "Uid 4000000 has no entry in /etc/passwd"),
        ("daemon:nosuchgroup", 'Error during groupname lookup for "nosuchgroup"'),
        ("nobody:users", "Can't create ID mappings: no subuid ranges found for user"),
    ],
)
def test_invalid_users(config: Config, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remap.remapped(replace(config, userns_remap=text))
    assert words in str(caught.value)
    assert not config.data_root.exists()


def test_invalid_range_line(config: Config) -> None:
    Path(remap.SUBUID).write_text("daemon:x:5\n")
    with pytest.raises(ConfigError, match="invalid line"):
        remap.remapped(config)


def test_inaccessible_parent_directory(config: Config) -> None:
    config.data_root.parent.chmod(0o700)
    with pytest.raises(ConfigError, match="restricts access to the remapped root"):
        remap.remapped(config)


def test_data_root_becomes_accessible_to_mapped_root(config: Config) -> None:
    config.data_root.mkdir(mode=0o700)
    remap.remapped(config)
    info = config.data_root.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o710, 0, 700000)
