"""Exec: an additional process in a running container."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from api_models.base import Uint
from api_models.record import Record, Strings
from api_models.versions import Since


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCreateRequest(Record):
    """The body of ``POST /containers/{id}/exec``."""

    go_name: ClassVar[str] = "types.ExecConfig"

    user: str = ""
    privileged: bool = False
    tty: bool = False
    # [height, width]
    console_size: Annotated[tuple[Uint, ...] | None, Since((1, 42))] = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: Strings | None = None
    working_dir: str = ""
    cmd: Strings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStartRequest(Record):
    """The body of ``POST /exec/{id}/start``."""

    go_name: ClassVar[str] = "types.ExecStartCheck"

    detach: bool = False
    tty: bool = False
    console_size: Annotated[tuple[Uint, ...] | None, Since((1, 42))] = None
