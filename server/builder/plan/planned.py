"""What a plan is made of and what it comes to: the client's options, the bases, the planned stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import Warning
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.steps import Base, Step

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
"""Predefined arguments, lower and upper case: no ``ARG`` needed, no part of the cache's key."""


class Variables(Mapping[str, str]):
    """A live view of two mappings as one: the environment of an image hides build arguments of the same name."""

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
"""How a named context begins that is the result of another build."""
LAYOUT = "oci-layout://"
"""How one begins that is an image in a folder of the client."""
IMAGES = ("docker-image://", INPUT, LAYOUT)
"""How named contexts begin that have a configuration: they stand for an image."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image: its layers, and its configuration's JSON."""

    base: Base
    config: Mapping[str, object]


class Bases(Protocol):
    """Where a plan learns of images and named contexts."""

    def named_context(self, name: str) -> str | None:
        """What the client gave for a name (``docker-image://…``, ``local:…`` …); ``None`` if nothing."""

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        """Resolves, and pulls if needed. Raises NOT_FOUND and what a registry refuses."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the client of a build may say. ``platform`` is the one to build for, ``os/arch[/variant]``."""

    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux/amd64"
    build_platform: str = "linux/amd64"
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    classic: bool = False
    """History and sentences as the classic builder has them."""
    network: str = "default"
    multi_platform: bool = False
    default_path: bool = True
    """A base image without a PATH gets one."""


@dataclass(slots=True)
class Line:
    """One instruction as planned: its step if it makes a layer, and the configuration after it."""

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
    """Build arguments with their values at the stage's end."""
    names: tuple[str, ...] = ()
    """Of the environment and the arguments, in the order in which they were set last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be solved. ``stages``: those that the target needs, in the Dockerfile's order."""

    dockerfile: ins.Dockerfile
    stages: tuple[PlannedStage, ...]
    target: PlannedStage
    warnings: tuple[Warning, ...]
    unused_args: tuple[str, ...]
