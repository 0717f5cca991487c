"""The data key, and how it is sealed on the disk."""

import re
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.swarm.keys import Keys, Locked, WrongKey, new_unlock_key, parse_unlock_key


def test_a_sealed_value_is_opened_by_the_same_data_key_only(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path)
    sealed = keys.seal(b"secret")
    assert keys.open(sealed) == b"secret"
    assert sealed != keys.seal(b"secret")
    assert Keys.load(tmp_path).open(sealed) == b"secret"
    (tmp_path / "other").mkdir()
    with pytest.raises(WharfError) as refused:
        Keys.create(tmp_path / "other").open(sealed)
    assert refused.value.kind is Kind.INTERNAL


def test_a_changed_value_is_refused(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path)
    sealed = keys.seal(b"secret")
    changed = sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]
    with pytest.raises(WharfError, match="did not seal"):
        keys.open(changed)


def test_only_root_reads_the_files(tmp_path: Path) -> None:
    Keys.create(tmp_path)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "data.key": "0o600",
        "manager.key": "0o600",
    }


def test_the_unlock_key_seals_the_data_key(tmp_path: Path) -> None:
    keys, unlock = Keys.create(tmp_path), new_unlock_key()
    sealed = keys.seal(b"secret")
    keys.reseal(unlock)
    assert not (tmp_path / "manager.key").exists()
    with pytest.raises(Locked, match="needs to be unlocked"):
        Keys.load(tmp_path)
    with pytest.raises(WrongKey, match="invalid key provided"):
        Keys.load(tmp_path, new_unlock_key())
    unlocked = Keys.load(tmp_path, unlock)
    assert unlocked.open(sealed) == b"secret"
    unlocked.reseal("")
    assert Keys.load(tmp_path).open(sealed) == b"secret"


def test_another_unlock_key_replaces_the_first(tmp_path: Path) -> None:
    keys, first, second = Keys.create(tmp_path), new_unlock_key(), new_unlock_key()
    sealed = keys.seal(b"secret")
    keys.reseal(first)
    keys.reseal(second)
    with pytest.raises(WrongKey):
        Keys.load(tmp_path, first)
    assert Keys.load(tmp_path, second).open(sealed) == b"secret"


def test_sealing_again_changes_nothing(tmp_path: Path) -> None:
    keys, unlock = Keys.create(tmp_path), new_unlock_key()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    keys.reseal("")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    keys.reseal(unlock)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    keys.reseal(unlock)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_managers_key_that_a_crash_left_is_ignored(tmp_path: Path) -> None:
    keys, unlock = Keys.create(tmp_path), new_unlock_key()
    left = (tmp_path / "manager.key").read_bytes()
    keys.reseal(unlock)
    (tmp_path / "manager.key").write_bytes(left)
    with pytest.raises(Locked):
        Keys.load(tmp_path)
    keys = Keys.load(tmp_path, unlock)
    keys.reseal(unlock)
    assert not (tmp_path / "manager.key").exists()


def test_unlock_keys() -> None:
    key = new_unlock_key()
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", key)
    assert len(parse_unlock_key(key)) == 32
    for wrong in ("", "x", "SWMKEY-1-", "SWMKEY-1-%%%", key.removeprefix("SWMKEY-1-")):
        with pytest.raises(WharfError, match="invalid key string"):
            parse_unlock_key(wrong)
