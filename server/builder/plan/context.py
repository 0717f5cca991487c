"""What a stage sees of the plan that it belongs to, and an instruction of its stage."""

from collections.abc import Callable, Mapping
from typing import Protocol

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import Span
from server.builder.dockerfile.expand import Budget, Expansion
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.planned import BaseImage, Bases, Options, PlannedStage
from server.builder.plan.steps import Origin


class PlanContext(Protocol):
    """All stages of one Dockerfile (:class:`server.builder.plan.plan.Planner`)."""

    file: ins.Dockerfile
    options: Options
    bases: Bases
    budget: Budget
    """Bytes that expansions may still make."""
    names: dict[str, int]
    """Name of a stage → its index."""
    arguments: dict[str, str]
    """``ARG`` before the first ``FROM``, with the platform's."""
    used_args: set[str]
    """Build arguments that the Dockerfile declares."""
    many: bool
    """Whether the file has more than one stage."""

    def expand(self, text: str, variables: Mapping[str, str], span: Span) -> str:
        """:raises DockerfileError: malformed, or beyond the budget."""

    def checked(self, function: Callable[[], Expansion], span: Span, text: str) -> Expansion:
        """Calls an expansion. :raises DockerfileError: of ``text``, at ``span``."""

    def spend(self, size: int, span: Span) -> None:
        """Takes bytes off the budget. :raises DockerfileError: there are not as many."""

    def platform(self, base: ins.From) -> str:
        """``--platform`` of a ``FROM``, as ``os/arch[/variant]``. :raises DockerfileError: it is none."""

    async def stage(self, index: int) -> PlannedStage:
        """Plans another stage, once."""

    async def image(self, ref: str, span: Span, *, platform: str, step: str) -> BaseImage:
        """A base image. :raises DockerfileError: it is not to be had."""

    async def origin(self, name: str, span: Span, *, before: int, out_of_order: str) -> Origin:
        """What ``--from`` names: a stage ``before`` an index, an image or a named context.

        :raises DockerfileError: with ``out_of_order``: a later stage.
        """


class StageContext(Protocol):
    """One stage (:class:`server.builder.plan.stage.StagePlanner`)."""

    options: Options
    config: ImageConfig
    cmd_set: bool
    """Whether the stage itself has set ``CMD``."""

    @property
    def planner(self) -> PlanContext: ...

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment, then the arguments."""

    def expand(self, text: str, span: Span) -> str:
        """:raises DockerfileError: malformed, or beyond the budget."""

    def history(self, buildkit: str, classic: str) -> None:
        """Adds an entry without a layer, in the words of the builder that runs."""
