"""Turns instructions and the configurations of base images into stages of steps. Variables are expanded; nothing runs.

Only stages that the target needs are planned. The configurations of base images come from a :class:`Bases` and must be
known first, as their environment is used in expansion. A plan is made in a thread, because a Dockerfile of several MB
takes seconds; the cost is linear in the text and in the values of variables.
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from engine.common import limits
from engine.common.errors import WharfError, invalid
from engine.common.threads import run_in_thread, run_to_completion
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span, Warning
from server.builder.dockerfile.expand import Budget, Expansion, expand
from server.builder.dockerfile.lint import findings, platform_mismatch, suggestion, undefined
from server.builder.plan import formatting
from server.builder.plan.imageconfig import History
from server.builder.plan.model import IMAGES, PROXIES, BaseImage, Bases, Options, Plan, PlannedStage
from server.builder.plan.stage import StagePlanner
from server.builder.plan.steps import SCRATCH, Base, Origin, Step

__all__ = ["BaseImage", "Bases", "Options", "Plan", "PlannedStage", "plan"]


def platform_args(platform: str, prefix: str) -> dict[str, str]:
    """Return ``TARGETPLATFORM`` and its parts."""
    os, arch, variant = (*platform.split("/"), "", "")[:3]
    return {f"{prefix}PLATFORM": platform, f"{prefix}OS": os, f"{prefix}ARCH": arch, f"{prefix}VARIANT": variant}


def quoted(text: str) -> str:
    """Quote a text as Go's ``%q`` does."""
    return json.dumps(text, ensure_ascii=False)


T = TypeVar("T")
_NAME = re.compile(r"[${}]|[:+-].*")
_SHOWN = 4096
"""The most characters of a word that an error repeats."""
NO_REFERENCE = "invalid reference format"


class Planner:
    """Makes one plan. Use :func:`plan`."""

    def __init__(self, file: ins.Dockerfile, options: Options, bases: Bases) -> None:
        self.file, self.options, self.bases = file, options, bases
        if len(file.stages) > limits.DOCKERFILE_STAGES:
            raise limits.exceeded("DOCKERFILE_STAGES", "the number of stages")
        self.budget = Budget()
        self.unknown: list[tuple[str, Span, Sequence[str]]] = []
        """Variables that are used without a value, with their location and some known names."""
        self.mismatched: list[Warning] = []
        """Base images of another platform than the requested one."""
        self._planned: dict[int, PlannedStage] = {}
        self._active: list[int] = []
        self.used_args: set[str] = set()
        self.names = {stage.base.name: stage.index for stage in file.stages if stage.base.name}
        self.arguments = self._global_args()
        self.many = len(file.stages) > 1

    def _global_args(self) -> dict[str, str]:
        values = {
            **platform_args(self.options.platform, "TARGET"),
            **platform_args(self.options.build_platform, "BUILD"),
            "TARGETSTAGE": self.options.target or "default",
        }
        for arg in self.file.arguments:
            for name, default in arg.values:
                given = self.options.build_args.get(name)
                if name in self.options.build_args:
                    self.used_args.add(name)
                if given is not None:
                    values[name] = given
                elif default is not None:
                    values[name] = self.expand(default, values, arg.span)
        return values

    def expand(self, text: str, variables: Mapping[str, str], span: Span) -> str:
        found = self.checked(lambda: expand(text, variables, escape=self.file.escape, budget=self.budget), span, text)
        for name in sorted(found.unknown):
            if len(self.unknown) < limits.UNDEFINED_VARIABLES:
                self.unknown.append((name, span, tuple(islice(variables, limits.SUGGESTED_NAMES))))
        return found.text

    def checked(self, function: Callable[[], Expansion], span: Span, text: str) -> Expansion:
        try:
            return function()
        except DockerfileError:
            raise
        except WharfError as error:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            raise DockerfileError(f"failed to process {quoted(shown)}: {error.message}", span) from error

    def spend(self, size: int, span: Span) -> None:
        """Count text that an instruction expands to without a variable. Raises :class:`DockerfileError`."""
        try:
            self.budget.spend(size)
        except WharfError as error:
            raise DockerfileError(error.message, span) from error

    def _find(self, name: str) -> int | None:
        if name.isdigit() and int(name) < len(self.file.stages):
            return int(name)
        return self.names.get(name.lower())

    def refuse_cycles(self) -> None:
        """Raise :class:`DockerfileError` for a cycle of stages, before any image is requested."""
        needs = [self._needs(stage) for stage in self.file.stages]
        for stage, below in zip(self.file.stages, needs, strict=True):
            if stage.index in below:
                sentence = f"circular dependency detected on stage: {stage.name}"
                raise DockerfileError(sentence, self._naming(stage).span)
        settled: set[int] = set()

        def visit(index: int, above: tuple[int, ...]) -> None:
            if len(above) > limits.STAGE_DEPTH:
                raise limits.exceeded("STAGE_DEPTH", "the chain of stages that need one another")
            if index in above:
                raise DockerfileError(f"circular dependency detected on stage: {self.file.stages[index].name}")
            if index not in settled:
                for below in needs[index]:
                    visit(below, (*above, index))
                settled.add(index)

        for index in range(len(needs)):
            visit(index, ())

    def _naming(self, stage: ins.Stage) -> ins.Instruction:
        """The instruction by which a stage refers to itself, for the error."""
        for item in stage.instructions:
            names = [item.from_] if isinstance(item, ins.Copy) else []
            names += [mount.from_ for mount in item.mounts] if isinstance(item, ins.Run) else []
            if any(name and self._find(name) == stage.index for name in names):
                return item
        return stage.base

    def _needs(self, stage: ins.Stage) -> list[int]:
        """The stages that a stage refers to by names without variables."""
        names = [item.from_ for item in stage.instructions if isinstance(item, ins.Copy)]
        names += [mount.from_ for item in stage.instructions if isinstance(item, ins.Run) for mount in item.mounts]
        found = [index for name in names if name and (index := self._find(name)) is not None]
        base = self.names.get(stage.base.image.lower())
        return found if base is None or base == stage.index else [base, *found]

    async def target(self) -> PlannedStage:
        """Plan the target and the stages that it needs."""
        target = self.options.target
        if not target:
            index = len(self.file.stages) - 1
        else:
            found = self._find(target)
            if found is None:
                if self.options.classic:
                    raise invalid(f"failed to reach build target {target} in Dockerfile")
                raise invalid(f'target stage "{target}" could not be found')
            index = found
        return await self.stage(index)

    async def stage(self, index: int) -> PlannedStage:
        """Plan a stage, once. Raises :class:`DockerfileError` for a cycle."""
        if index in self._planned:
            return self._planned[index]
        stage = self.file.stages[index]
        if index in self._active:
            raise DockerfileError(f"circular dependency detected on stage: {stage.name}", stage.base.span)
        if len(self._active) > limits.STAGE_DEPTH:
            raise limits.exceeded("STAGE_DEPTH", "the chain of stages that need one another")
        self._active.append(index)
        planned = await StagePlanner(self, stage).run()
        self._active.pop()
        self._planned[index] = planned
        return planned

    async def origin(self, name: str, span: Span, *, before: int, out_of_order: str) -> Origin:
        """Resolve ``--from`` or ``from=`` to a stage, named context or image.

        Raises :class:`DockerfileError` with ``out_of_order`` for a later stage.
        """
        index = self._find(name)
        if index is not None and not (name.isdigit() and index >= before):
            if index > before and not self.options.classic and self.bases.named_context(name) is None:
                raise DockerfileError(out_of_order, span)
            return Origin((await self.stage(index)).last)
        context = self.bases.named_context(name)
        if context is not None and not context.startswith(IMAGES):
            return Origin(context=name)
        if name.isdigit():
            number = int(name)
            if number >= len(self.file.stages):
                raise DockerfileError(f"invalid stage index {name}")
            block = "stage" if self.options.classic else "block"
            raise DockerfileError(f"invalid from flag value {name}: refers to current build {block}", span)
        ref = context.removeprefix("docker-image://") if context else name
        if ref == "scratch":
            return Origin(Step(Base("scratch", SCRATCH.key, "", ()), None, "FROM scratch", span))
        try:
            image = await self.image(ref, span, platform=self.options.platform, step=f"FROM {ref}")
        except WharfError as error:
            if self.options.classic:
                raise WharfError(error.kind, f"invalid from flag value {name}: {error.message}") from error
            raise
        return Origin(Step(replace(image.base, platform=self.options.platform), None, f"FROM {ref}", span))

    def platform(self, base: ins.From) -> str:
        """Expand ``FROM --platform``."""
        found = self.expand(base.platform, self.arguments, base.span)
        if not found and self.options.classic:
            raise invalid(
                'failed to parse platform : "" is an invalid OS component of "": OSAndVersion specifier component must '
                'match "^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$": invalid argument'
            )
        if not found:
            meant = suggestion(_NAME.sub("", base.platform), self.arguments)
            raise DockerfileError(f"empty platform value from expression {base.platform}{meant}", base.span)
        return found

    async def image(self, ref: str, span: Span, *, platform: str, step: str) -> BaseImage:
        """Resolve a base image. On failure, BuildKit's clients show the lines that refer to it."""
        try:
            found = await self.bases.image(ref, platform=platform, step=step)
        except WharfError as error:
            if self.options.classic:
                raise
            start = f"failed to parse stage name {quoted(ref)}: " if error.message == NO_REFERENCE else ""
            raise DockerfileError(start + error.message, span) from error
        if mismatch := platform_mismatch(ref, found.config, platform, span):
            self.mismatched.append(mismatch)
        return found

    def warnings(self) -> list[Warning]:
        found = [*self.file.warnings, *findings(self.file), *self.mismatched, *undefined(self.file, self.unknown)]
        return sorted(found, key=lambda item: item.span.first)

    def plan(self, target: PlannedStage) -> Plan:
        stages = tuple(self._planned[index] for index in sorted(self._planned))
        given = {name for name in self.options.build_args if name.lower() not in PROXIES}
        given -= {name for name in given if name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH"}
        return Plan(self.file, stages, target, tuple(self.warnings()), tuple(sorted(given - self.used_args)))


class _OnLoop:
    """A :class:`Bases` for the planning thread: it resolves on the event loop while the thread waits."""

    def __init__(self, bases: Bases) -> None:
        self._bases, self._loop = bases, asyncio.get_running_loop()
        self._lock = threading.Lock()  # guards against a stop before ``_waiting`` is set
        self._waiting: Future[BaseImage] | None = None
        self._stopped = False

    def named_context(self, name: str) -> str | None:
        return self._bases.named_context(name)

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        with self._lock:
            if self._stopped:
                raise asyncio.CancelledError
            resolving = self._bases.image(ref, platform=platform, step=step)
            self._waiting = asyncio.run_coroutine_threadsafe(resolving, self._loop)
        return self._waiting.result()

    def stop(self) -> None:
        """End a waiting thread, and later requests."""
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()


def _completed(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that awaits only :class:`_OnLoop`, which blocks instead of suspending; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a plan awaits its bases only")


async def plan(file: ins.Dockerfile, options: Options, bases: Bases) -> Plan:
    """Plan a build in a thread. Raises :class:`DockerfileError`, and what resolving a base raises."""
    resolver = _OnLoop(bases)

    def work() -> Plan:
        planner = Planner(file, options, resolver)
        try:
            return _completed(_planned(planner))
        except DockerfileError as error:
            error.warnings = planner.warnings()
            raise

    # A thread outside the pool: pulling a base image may take minutes.
    return await run_to_completion(run_in_thread(work), resolver.stop)


async def _planned(planner: Planner) -> Plan:
    options = planner.options
    if not options.classic:
        planner.refuse_cycles()
    target = await planner.target()
    if options.labels:
        target.config.merge_map("Labels", dict(options.labels))
        if options.classic:
            shown = " ".join(f"{name}={value}" for name, value in sorted(options.labels.items()))
            target.config.history.append(History(formatting.nop(f"LABEL {shown}"), empty_layer=True))
    return planner.plan(target)
