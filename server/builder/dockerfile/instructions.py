"""The instructions of a Dockerfile as data. Words are unexpanded where the reference specifies that variables are
replaced; others (``RUN``, ``CMD``, ``ENTRYPOINT``) are final.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.builder.dockerfile.errors import Span, Warning
from server.builder.dockerfile.lines import Heredoc


@dataclass(frozen=True, slots=True)
class Instruction:
    """Fields of every instruction. ``original``: its text, as ``Step 2/5 : …`` and the history show it."""

    span: Span
    original: str


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str = ""
    name: str = ""
    """The stage's name in lower case; empty without ``AS``."""
    platform: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    """``values``: name → default, or ``None``."""

    values: tuple[tuple[str, str | None], ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """``RUN --mount``. Values with variables are unexpanded.

    ``mode``, ``uid``, ``gid`` and ``size`` keep their text, which may contain variables.
    """

    type: str = "bind"
    source: str = ""
    target: str = ""
    from_: str = ""
    id: str = ""
    sharing: str = "shared"
    readonly: bool | None = None
    required: bool = False
    mode: str = ""
    uid: str = ""
    gid: str = ""
    size: str = ""
    env: str | None = None


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    """``args`` of the exec form, or one shell text. Here-documents: the script, or files that the shell reads."""

    args: tuple[str, ...] = ()
    shell: bool = True
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    device: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """``COPY`` and ``ADD``."""

    sources: tuple[str, ...] = ()
    target: str = ""
    heredocs: tuple[Heredoc, ...] = ()
    """Here-documents; their names are not among ``sources``."""
    add: bool = False
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class Command(Instruction):
    """``CMD`` and ``ENTRYPOINT``."""

    entrypoint: bool = False
    args: tuple[str, ...] = ()
    shell: bool = True


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """Durations in nanoseconds; 0 inherits. ``test``: ``NONE``, ``CMD …`` or ``CMD-SHELL text``."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str = ""


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str = ""


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str = ""


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    text: str = ""


@dataclass(frozen=True, slots=True)
class OnBuild(Instruction):
    """``text``: the deferred instruction; it is also parsed now, so that an invalid one fails."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A ``FROM`` and the instructions after it. ``index`` counts from 0."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name that clients see: the stage's name, or ``stage-N``."""
        return self.base.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile. ``arguments``: the ``ARG`` instructions before the first ``FROM``."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    directives: Mapping[str, str]
    escape: str
    lines: tuple[str, ...]
    warnings: tuple[Warning, ...]
