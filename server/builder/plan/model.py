"""The input and the output of planning: the client's options, the bases, the planned stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import Warning
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.steps import Base, Step

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
"""Predefined arguments, in lower and upper case: usable without ``ARG``, not part of cache keys."""


class Variables(Mapping[str, str]):
    """A live view of two mappings: variables of the environment hide build arguments of the same name."""

    __slots__ = ("_args", "_env")

    def __init__(self, env: Mapping[str, str], args: Mapping[str, str]) -> None:
        self._env, self._args = env, args

    def __getitem__(self, name: str) -> str:
        return self._env[name] if name in self._env else self._args[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._args
        yield from (name for name in self._env if name not in self._args)

    def __len__(self) -> int:
        return sum(1 for _ in self)


INPUT = "input:"
"""Prefix of a named context that is the result of another build."""
LAYOUT = "oci-layout://"
"""Prefix of a named context that is an image in a client's OCI layout."""
IMAGES = ("docker-image://", INPUT, LAYOUT)
"""Prefixes of named contexts that are images and have a configuration."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image: its layers, and the JSON of its configuration."""

    base: Base
    config: Mapping[str, object]


class Bases(Protocol):
    """Resolves the images and named contexts of a plan."""

    def named_context(self, name: str) -> str | None:
        """Return the client's value for a name (``docker-image://…``, ``local:…`` …); ``None`` if there is none."""

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        """Resolve an image, pull it if needed. Raises NOT_FOUND and the registry's errors."""


@dataclass(frozen=True, slots=True)
class Options:
    """The client's build options. ``platform``: the target platform, ``os/arch[/variant]``."""

    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux/amd64"
    build_platform: str = "linux/amd64"
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    classic: bool = False
    """Write history and error sentences as the classic builder does."""
    network: str = "default"
    multi_platform: bool = False
    default_path: bool = True
    """Set the default PATH in base images that have none."""


@dataclass(slots=True)
class Line:
    """A planned instruction: its step if it creates a layer, and the configuration after it."""

    instruction: ins.Instruction
    step: Step | None
    config: ImageConfig
    trigger: bool = False


@dataclass(slots=True)
class PlannedStage:
    """A stage with its last step (``None`` for an untouched ``FROM scratch``) and its final configuration."""

    stage: ins.Stage
    base_ref: str
    last: Step | None
    config: ImageConfig
    lines: list[Line]
    platform: str
    args: Mapping[str, str] = field(default_factory=dict)
    """Build arguments with their values at the end of the stage."""
    names: tuple[str, ...] = ()
    """Names in the environment and the arguments, in the order of their last assignment."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned build. ``stages``: those that the target needs, in the order of the Dockerfile."""

    dockerfile: ins.Dockerfile
    stages: tuple[PlannedStage, ...]
    target: PlannedStage
    warnings: tuple[Warning, ...]
    unused_args: tuple[str, ...]
