"""The interfaces of a plan and of a stage, as instructions use them."""

from collections.abc import Callable, Mapping
from typing import Protocol

from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import Span
from server.builder.dockerfile.expand import Budget, Expansion
from server.builder.plan.imageconfig import ImageConfig
from server.builder.plan.model import BaseImage, Bases, Options, PlannedStage
from server.builder.plan.steps import Origin


class PlanContext(Protocol):
    """The plan of one Dockerfile (:class:`server.builder.plan.plan.Planner`)."""

    file: ins.Dockerfile
    options: Options
    bases: Bases
    budget: Budget
    """The rest of the expansion limit, in bytes."""
    names: dict[str, int]
    """Stage name → index."""
    arguments: dict[str, str]
    """The ``ARG`` instructions before the first ``FROM``, and the platform's arguments."""
    used_args: set[str]
    """Build arguments that the Dockerfile declares."""
    many: bool
    """Whether the file has more than one stage."""

    def expand(self, text: str, variables: Mapping[str, str], span: Span) -> str:
        """:raises DockerfileError: malformed, or beyond the budget."""

    def checked(self, function: Callable[[], Expansion], span: Span, text: str) -> Expansion:
        """Run an expansion. :raises DockerfileError: about ``text``, at ``span``."""

    def spend(self, size: int, span: Span) -> None:
        """Count bytes against the expansion limit. :raises DockerfileError: the limit is exceeded."""

    def platform(self, base: ins.From) -> str:
        """Return ``--platform`` of a ``FROM`` as ``os/arch[/variant]``. :raises DockerfileError: it is invalid."""

    async def stage(self, index: int) -> PlannedStage:
        """Plan another stage, once."""

    async def image(self, ref: str, span: Span, *, platform: str, step: str) -> BaseImage:
        """Resolve a base image. :raises DockerfileError: it is not available."""

    async def origin(self, name: str, span: Span, *, before: int, out_of_order: str) -> Origin:
        """Resolve ``--from`` to a stage ``before`` an index, an image or a named context.

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
        """The environment and the arguments."""

    def expand(self, text: str, span: Span) -> str:
        """:raises DockerfileError: malformed, or beyond the budget."""

    def history(self, buildkit: str, classic: str) -> None:
        """Add a history entry without a layer, in the words of the current builder."""
