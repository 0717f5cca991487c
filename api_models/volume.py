"""Volumes: the body of a creation (answers are the same in every version)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from api_models.base import OMIT
from api_models.record import Record, StringMap
from api_models.versions import Since


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeCreateRequest(Record):
    """The body of ``POST /volumes/create``. Without a name: a random one; without a driver: "local"."""

    go_name: ClassVar[str] = "volume.CreateOptions"

    name: str = ""
    driver: str = ""
    driver_opts: StringMap | None = None
    labels: StringMap | None = None
    cluster_volume_spec: Annotated[Mapping[str, Any] | None, OMIT, Since((1, 42))] = None
