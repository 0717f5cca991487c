"""Secrets and configs."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Uint32
from api_models.record import Record
from api_models.swarm.common import Annotations, Driver


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSpec(Annotations):
    """``data`` is base64."""

    go_name: ClassVar[str] = "swarm.ConfigSpec"

    data: Annotated[str, Go("[]uint8"), OMIT] = ""
    templating: Annotated[Driver | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSpec(Annotations):
    """``data`` is base64; answers don't have it. ``driver``: an external store of secrets."""

    go_name: ClassVar[str] = "swarm.SecretSpec"

    data: Annotated[str, Go("[]uint8"), OMIT] = ""
    driver: Annotated[Driver | None, OMIT] = None
    templating: Annotated[Driver | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget(Record):
    """The file of a secret or config in a container. ``name``: relative to the default directory, or absolute."""

    go_name: ClassVar[str] = "swarm.SecretReferenceFileTarget"

    name: str = ""
    uid: Annotated[str, Field(alias="UID")] = ""
    gid: Annotated[str, Field(alias="GID")] = ""
    mode: Annotated[Uint32, Go("fs.FileMode")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference(Record):
    go_name: ClassVar[str] = "swarm.SecretReference"

    file: FileTarget | None = None
    secret_id: Annotated[str, Field(alias="SecretID")] = ""
    secret_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeTarget(Record):
    """The config is no file: the engine uses it itself, as a credential spec."""

    go_name: ClassVar[str] = "swarm.ConfigReferenceRuntimeTarget"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReference(Record):
    go_name: ClassVar[str] = "swarm.ConfigReference"

    file: Annotated[FileTarget | None, OMIT] = None
    runtime: Annotated[RuntimeTarget | None, OMIT] = None
    config_id: Annotated[str, Field(alias="ConfigID")] = ""
    config_name: str = ""
