"""Mounts in requests (``HostConfig.Mounts``)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from api_models.base import OMIT, Go, Int64, Uint32
from api_models.record import Record, StringMap, Strings
from api_models.supported import Version
from api_models.versions import Checked, Needs, Since
from engine.common.errors import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions(Record):
    go_name: ClassVar[str] = "mount.BindOptions"

    propagation: Annotated[str, Go("mount.Propagation"), OMIT] = ""
    non_recursive: Annotated[bool, OMIT, Since((1, 40))] = False
    create_mountpoint: Annotated[bool, OMIT, Since((1, 42))] = False
    # Before 1.44, it follows the mount's ``ReadOnly`` (below).
    read_only_non_recursive: Annotated[bool, OMIT] = False
    read_only_force_recursive: Annotated[bool, OMIT, Needs((1, 44), "BindOptions.ReadOnlyForceRecursive")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig(Record):
    go_name: ClassVar[str] = "mount.Driver"

    name: Annotated[str, OMIT] = ""
    options: Annotated[StringMap | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions(Record):
    go_name: ClassVar[str] = "mount.VolumeOptions"

    no_copy: Annotated[bool, OMIT] = False
    labels: Annotated[StringMap | None, OMIT] = None
    subpath: Annotated[str, OMIT, Needs((1, 45), "VolumeOptions.Subpath")] = ""
    driver_config: Annotated[DriverConfig | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions(Record):
    go_name: ClassVar[str] = "mount.ImageOptions"

    subpath: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsOptions(Record):
    go_name: ClassVar[str] = "mount.TmpfsOptions"

    size_bytes: Annotated[Int64, OMIT] = 0
    mode: Annotated[Uint32, Go("fs.FileMode"), OMIT] = 0
    # [["noexec"], ["uid", "1000"], ...]
    options: Annotated[tuple[Strings, ...] | None, OMIT, Since((1, 46))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions(Record):
    go_name: ClassVar[str] = "mount.ClusterOptions"


def _options_fit_type(mount: "Mount", version: Version) -> None:
    """Options of another type than the mount's: ignored before 1.42, refused since."""
    for name, kind in (("volume_options", "volume"), ("bind_options", "bind"), ("tmpfs_options", "tmpfs")):
        if getattr(mount, name) is None or mount.type == kind:
            continue
        if version < (1, 42):
            if kind != "bind":
                setattr(mount, name, None)
            continue
        alias = {"volume": "VolumeOptions", "bind": "BindOptions", "tmpfs": "TmpfsOptions"}[kind]
        raise invalid(f'{alias} must not be specified on mount type "{mount.type}"')
    if mount.image_options is not None and mount.type != "image" and version >= (1, 48):
        raise invalid(f'ImageOptions must not be specified on mount type "{mount.type}"')
    if mount.type == "image" and version < (1, 48):
        raise invalid('Mount type "Image" needs API v1.48 or newer')


def _read_only_at_the_top(body: Any, version: Version) -> None:
    """Before 1.44, read-only binds are not recursively read-only."""
    if version < (1, 44) and body.bind_options is not None:
        body.bind_options.read_only_non_recursive = body.read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount(Record):
    go_name: ClassVar[str] = "mount.Mount"

    type: Annotated[str, Go("mount.Type"), OMIT, Checked(_options_fit_type)] = ""
    source: Annotated[str, OMIT] = ""
    target: Annotated[str, OMIT] = ""
    read_only: Annotated[bool, OMIT, Checked(_read_only_at_the_top)] = False
    consistency: Annotated[str, Go("mount.Consistency"), OMIT] = ""
    bind_options: Annotated[BindOptions | None, OMIT] = None
    volume_options: Annotated[VolumeOptions | None, OMIT] = None
    image_options: Annotated[ImageOptions | None, OMIT] = None
    tmpfs_options: Annotated[TmpfsOptions | None, OMIT] = None
    cluster_options: Annotated[ClusterOptions | None, OMIT] = None
