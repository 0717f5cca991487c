"""The parser of ``-v`` and ``--mount``, and its errors."""

from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from server.containers.mounts.mountspec import parse_bind, parse_mount, parse_volumes_from, tmpfs_options, valid_mode


@pytest.mark.parametrize(
    ("text", "kind", "source", "destination", "rw", "mode", "propagation"),
    [
        ("/src:/dst", "bind", "/src", "/dst", True, "", "rprivate"),
        ("/src/:/dst/:ro,rslave", "bind", "/src", "/dst", False, "ro,rslave", "rslave"),
        ("/src:/dst:Z,shared,cached", "bind", "/src", "/dst", True, "Z,shared,cached", "shared"),
        ("vol:/dst:ro", "volume", "", "/dst", False, "ro", ""),
        ("/dst", "volume", "", "/dst", True, "", ""),
    ],
)
def test_bind_strings(
    text: str, kind: str, source: str, destination: str, rw: bool, mode: str, propagation: str
) -> None:
    point = parse_bind(text, "")
    assert (point.kind, point.source, point.destination) == (kind, source, destination)
    assert (point.rw, point.mode, point.propagation) == (rw, mode, propagation)


def test_volume_strings() -> None:
    named = parse_bind("vol:/dst:nocopy", "other")
    assert (named.name, named.driver, named.copy_data, named.anonymous) == ("vol", "other", False, False)
    assert parse_bind("/dst", "").anonymous


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid volume specification: ''"),
        (":/dst", "invalid volume specification: ':/dst'"),
        ("/dst:ro", "invalid volume specification: '/dst:ro'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:nonsense", "invalid mode: nonsense"),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "vol:relative",
            "invalid volume specification: 'vol:relative': invalid mount config for type \"volume\": "
            "invalid mount path: 'relative' mount path must be absolute",
        ),
    ],
)
def test_bad_bind_strings(text: str, sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        parse_bind(text, "")
    assert (caught.value.kind, caught.value.message) == (Kind.INTERNAL, sentence)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"Type": "bind", "Source": "/tmp"}, 'type "bind": field Target must not be empty'),
        ({"Type": "bind", "Target": "/x"}, 'type "bind": field Source must not be empty'),
        (
            {"Type": "bind", "Target": "/x", "Source": "/no/such/place"},
            'type "bind": bind source path does not exist: /no/such/place',
        ),
        (
            {"Type": "bind", "Target": "/x", "Source": "/tmp", "BindOptions": {"Propagation": "odd"}},
            'type "bind": invalid propagation mode: odd',
        ),
        (
            {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}},
            'type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}},
            'type "volume": subpath must be a relative path within the volume',
        ),
        (
            {"Type": "volume", "Target": "/x", "ReadOnly": True},
            'type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        ({"Type": "tmpfs", "Target": "/x", "Source": "y"}, 'type "tmpfs": field Source must not be specified'),
        ({"Type": "odd", "Target": "/x"}, 'type "odd": mount type unknown'),
        ({"Type": "image", "Target": "/x"}, 'type "image": field Source must not be empty'),
    ],
)
def test_bad_mounts(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        parse_mount(spec)
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert caught.value.message == "invalid mount config for " + sentence


def test_tmpfs_options() -> None:
    options = {"SizeBytes": 3 << 20, "Mode": 0o1770, "Options": [["noexec"]]}
    spec = {"Type": "tmpfs", "Target": "/t", "ReadOnly": True, "TmpfsOptions": options}
    assert tmpfs_options(spec) == ["ro", "mode=1770", "size=3m", "noexec"]
    assert tmpfs_options({"TmpfsOptions": {"SizeBytes": 1500}}) == ["size=1500"]


def test_binds_copy_nothing() -> None:
    with pytest.raises(WharfError, match="field VolumeOptions must not be specified"):
        parse_bind("/src:/dst:nocopy", "")


def test_volumes_from() -> None:
    assert parse_volumes_from("other") == ("other", "rw")
    assert parse_volumes_from("other:ro,z") == ("other", "ro,z")
    for bad in ("other:nocopy", "other:rslave", "other:x", ""):
        with pytest.raises(WharfError):
            parse_volumes_from(bad)


def test_modes_of_one_group_exclude_each_other() -> None:
    assert valid_mode("ro,z,rslave,nocopy,cached")
    for mode in ("ro,rw", "z,Z", "private,shared", "cached,delegated", "ro,", "RO"):
        assert not valid_mode(mode)
