"""Volumes."""

from typing import Annotated, Any, ClassVar

from api_models.base import OMIT, Model, StringMap
from api_models.versions import Since


class VolumeCreateRequest(Model):
    """The body of ``POST /volumes/create``. Without a name: a random one; without a driver: "local"."""

    go_name: ClassVar[str] = "volume.CreateOptions"

    name: str = ""
    driver: str = ""
    driver_opts: StringMap | None = None
    labels: StringMap | None = None
    cluster_volume_spec: Annotated[dict[str, Any] | None, OMIT, Since((1, 42))] = None


class Volume(Model):
    """A volume as list and inspect show it."""

    created_at: Annotated[str, OMIT] = ""
    driver: str = ""
    labels: StringMap | None = None
    mountpoint: str = ""
    name: str = ""
    options: StringMap | None = None
    scope: str = "local"
    status: Annotated[dict[str, Any] | None, OMIT] = None
    usage_data: Annotated[dict[str, int] | None, OMIT] = None
