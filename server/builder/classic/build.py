"""Runs one build of the classic builder: numbered steps, their output and ids, and the resulting image."""

import asyncio
import contextlib
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.common.errors import Kind, WharfError, invalid
from engine.common.timeline import Timeline
from server.builder.classic import copy_errors
from server.builder.classic.history_cache import HistoryCache
from server.builder.classic.image import Documents, store
from server.builder.classic.metadata import MetadataTimes
from server.builder.classic.squash import find_base, squash
from server.builder.classic.stream import Stream
from server.builder.contexts.files import Context
from server.builder.dockerfile.errors import DockerfileError
from server.builder.dockerfile.instructions import Dockerfile, Instruction, Mount
from server.builder.dockerfile.parse import parse_in_thread
from server.builder.fetch import fetch
from server.builder.neighbours import Images
from server.builder.operations import interfaces
from server.builder.operations.base_snapshots import BaseSnapshots
from server.builder.operations.lifetime import Lifetime
from server.builder.operations.selection import Checksums
from server.builder.options import ClassicOptions
from server.builder.plan.instruction_times import InstructionTimes
from server.builder.plan.plan import BaseImage, Options, Plan, PlannedStage, plan
from server.builder.plan.steps import Base, Copy, Layer, Result, Step
from server.builder.runner import TaskRunner
from server.builder.solver.builder import Builder
from server.builder.solver.errors import StepFailed, StepRefused
from server.builder.solver.solve import Solver
from server.containers.context import ContainerContext
from server.images.model import Image, short_id
from server.images.rootfs import unpack_image
from server.messages import Progress, error_message
from server.registry import oci


@dataclass(slots=True)
class Bases:
    """Base images of one build (server.builder.plan.plan.Bases). Each is resolved once."""

    images: Images
    engine: Engine
    options: ClassicOptions
    messages: Progress
    found: dict[str, Image] = field(default_factory=dict)
    requested: str = ""

    def named_context(self, name: str) -> str | None:
        return None

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        self.requested = ref
        image = self.found.get(f"{ref} {platform}")
        if image is None:
            image = await self._find(ref, platform)
            self.found[f"{ref} {platform}"] = image
        layers = tuple(
            Layer(oci.descriptor(document, "layer"), diff_id, 0)
            for document, diff_id in zip(image.layers, image.diff_ids, strict=True)
        )
        return BaseImage(Base(ref, image.id, image.chain_id, layers), image.config)

    async def unpack(self, base: Base) -> None:
        """Unpacks a base image, for server.builder.operations.base_snapshots."""
        for image in self.found.values():
            if image.chain_id == base.chain_id:
                await unpack_image(self.engine, image)

    async def _find(self, ref: str, platform: str) -> Image:
        explicit = platform if self.options.platform or platform != host_platform() else None
        if not self.options.pull:
            try:
                return await self.images.resolve(ref, platform=explicit)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        await self.images.pull_for_build(
            ref, platform=explicit, credentials=self.options.credentials, messages=self.messages
        )
        return await self.images.resolve(ref, platform=explicit)


def host_platform() -> str:
    return oci.format_platform(oci.host_platform())


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of one build (server.builder.operations.interfaces.Contexts)."""

    context: interfaces.Context
    folder: str
    lifetime: Lifetime

    async def open(self, name: str) -> interfaces.Context:
        if name:
            raise invalid(f"no build context named {name}")
        return self.context

    async def secret(self, id: str) -> bytes | None:
        return None

    async def ssh(self, id: str, options: Mount) -> str | None:
        return None

    async def fetch(self, url: str, *, checksum: str, keep_git_dir: bool) -> interfaces.Fetched:
        return await fetch(self.folder, url, checksum=checksum, keep_git_dir=keep_git_dir)


class BuildFailed(Exception):
    """The build failed with a sentence for the client, which has received the output of earlier steps."""

    def __init__(self, sentence: str, code: int | None = None) -> None:
        super().__init__(sentence)
        self.sentence, self.code = sentence, code


async def read(context: Context, target: str) -> Dockerfile:
    """Parse the Dockerfile before the response starts, so that errors become a status.

    :raises WharfError: INVALID_ARGUMENT in dockerd's words.
    """
    try:
        file = await parse_in_thread(context.dockerfile)
    except DockerfileError as error:
        # Errors of the file as a whole, which dockerd detects before it parses single instructions.
        start = "failed to parse Dockerfile: " if error.numbered is False else ""
        raise invalid(f"{start}{error.sentence}") from None
    names = {stage.base.name for stage in file.stages} | {str(stage.index) for stage in file.stages}
    if target and target.lower() not in names:
        raise invalid(f'target stage "{target}" could not be found')
    return file


class ClassicBuild:
    """Runs one build and writes its output."""

    def __init__(
        self,
        container_context: ContainerContext,
        images: Images,
        builder: Builder,
        instruction_times: InstructionTimes,
        options: ClassicOptions,
        context: Context,
        out: Progress,
        lifetime: Lifetime,
    ) -> None:
        """``lifetime``: of the context's files."""
        self._container_context, self._images, self._builder = container_context, images, builder
        self._options, self._context, self._out, self._lifetime = options, context, out, lifetime
        self._bases = Bases(images, container_context.engine, options, out)
        self._results: dict[int, Result] = {}
        self._tasks: dict[int, asyncio.Task[Result]] = {}
        self._number = self._total = 0
        epoch = options.build_args.get("SOURCE_DATE_EPOCH") or ""
        self._epoch_ns = int(epoch) * 10**9 if epoch.isdigit() else None
        self._times = MetadataTimes(instruction_times, self._results, epoch_ns=self._epoch_ns)

    async def run(self, file: Dockerfile) -> None:
        """Run the build. A failure becomes the last message of the stream."""
        options = self._options
        self._stream = Stream(self._out, quiet=options.quiet, removes=options.remove)
        root = self._context.root
        sources = Sources(interfaces.Context(root, Checksums()), posixpath.dirname(root), self._lifetime)
        base_snapshots = BaseSnapshots(self._bases.unpack)
        candidates = self._times.candidates = await self._candidates()
        # As in dockerd, --cache-from restricts the cache to the named images: if none exists, nothing comes from it.
        self._times.no_cache = options.no_cache or (bool(options.cache_from) and not candidates)
        # The output shows every step with its image, so every stage must be solved (skip_sources=False).
        runner, epoch_ns = TaskRunner(self._container_context, options.limits, self._builder.caller), self._epoch_ns
        solver = Solver(
            self._builder, sources, runner, self._stream, epoch_ns, candidates, base_snapshots, skip_sources=False
        )
        try:
            with Timeline("build", options.build_id or next(iter(options.tags), ""), self._builder.caller.owner):
                await self._all(file, solver)
        except BuildFailed as failure:
            await self._times.save()
            await self._stream.flush()
            await self._out.put(error_message(invalid(failure.sentence), failure.code))
        finally:
            await asyncio.shield(solver.close())

    async def _candidates(self) -> list[HistoryCache]:
        """Return the local images of ``cachefrom``; dockerd pulls none either."""
        found: list[HistoryCache] = []
        for ref in self._options.cache_from:
            with contextlib.suppress(WharfError):
                found.append(HistoryCache(self._container_context.engine, await self._images.resolve(ref)))
        return found

    async def _all(self, file: Dockerfile, solver: Solver) -> None:
        made = await self._plan(file)
        for stage in made.stages:
            self._solve(solver, stage.last)
        try:
            for argument in file.arguments:
                await self._head(argument)
            for stage in made.stages:
                await self._stage(stage, solver, made)
                if stage is not made.target and not self._options.quiet:
                    await self._out.put({"aux": {"ID": (await self._documents(stage)).id}})
            await self._confirm(made.target, solver)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._finish(made)

    async def _confirm(self, target: PlannedStage, solver: Solver) -> None:
        """Solve the target again if cached results have gone, unless an image holds the target already."""
        documents = await self._documents(target)
        if await self._images.is_built(documents.id, ()) or await solver.verify(target.last):
            return
        self._tasks.clear()
        self._results.clear()
        await self._collect_results(target.last, solver)

    def _solve(self, solver: Solver, step: Step | None) -> "asyncio.Task[Result]":
        """Start solving a step."""
        key = id(step)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(solver.solve(step))
        return self._tasks[key]

    async def _plan(self, file: Dockerfile) -> Plan:
        options = self._options
        count = len(file.stages)
        if options.target:
            names = [stage.base.name for stage in file.stages]
            target = options.target.lower()
            count = 1 + (int(target) if target.isdigit() else names.index(target))
        self._total = len(file.arguments) + bool(options.labels)
        self._total += sum(1 + len(stage.instructions) for stage in file.stages[:count])
        target_platform = options.platform or host_platform()
        try:
            return await plan(
                file,
                Options(
                    target=options.target,
                    build_args=options.build_args,
                    labels=options.labels,
                    platform=target_platform,
                    build_platform=host_platform(),
                    no_cache=self._times.no_cache,
                    classic=True,
                    network=options.network_mode,
                ),
                self._bases,
            )
        except DockerfileError as error:
            span = error.span
            await self._show_failed(file, lambda item: span is not None and item.span.first == span.first)
            raise BuildFailed(error.message) from None
        except WharfError as error:
            await self._show_failed(file, lambda item: item.original.split()[1:2] == [self._bases.requested])
            raise BuildFailed(error.message) from None

    async def _show_failed(self, file: Dockerfile, fits: Callable[[Instruction], bool]) -> None:
        """Write the head of the step that could not be planned."""
        every: list[Instruction] = [*file.arguments]
        for stage in file.stages:
            every += [stage.base, *stage.instructions]
        for number, instruction in enumerate(every, 1):
            if fits(instruction):
                await self._stream.step(number, self._total, instruction.original)
                return

    async def _head(self, instruction: Instruction) -> None:
        self._number += 1
        await self._stream.step(self._number, self._total, instruction.original)

    async def _stage(self, stage: PlannedStage, solver: Solver, made: Plan) -> None:
        # Unneeded stages are not run, but steps keep the Dockerfile's numbers.
        file = made.dockerfile
        self._number = len(file.arguments)
        self._number += sum(1 + len(each.instructions) for each in file.stages[: stage.stage.index])
        await self._head(stage.stage.base)
        steps = [line.step for line in stage.lines if line.step is not None]
        current = steps[0].parent if steps else stage.last
        await self._collect_results(current, solver)
        triggers = sum(line.trigger for line in stage.lines)
        if triggers:
            await self._stream.write(f"# Executing {triggers} build trigger{'s' if triggers > 1 else ''}\n")
        else:
            await self._stream.write(f" ---> {await self._base_id(stage, current, made)}\n")
        for number, line in enumerate(stage.lines, 1):
            if not line.trigger:
                await self._head(line.instruction)
            if line.step is not None and line.step is not current:
                current = line.step
                await self._layer(current, solver)
            elif await self._times.apply(line.config, current):
                await self._stream.write(" ---> Using cache\n")
            if number >= triggers:  # the triggers of the base image are shown as one step
                await self._stream.write(f" ---> {short_id((await self._times.describe(line.config, current)).id)}\n")

    async def _base_id(self, stage: PlannedStage, current: Step | None, made: Plan) -> str:
        name = stage.stage.base.image.lower()
        for other in made.stages:
            if other.stage.index < stage.stage.index and other.stage.base.name == name:
                return short_id((await self._documents(other)).id)
        if current is not None and isinstance(current.operation, Base):
            return short_id(current.operation.digest)
        return ""

    async def _documents(self, stage: PlannedStage) -> Documents:
        return await self._times.describe(stage.config, stage.last)

    async def _collect_results(self, step: Step | None, solver: Solver) -> None:
        """Collect the results of a step and its ancestors."""
        while step is not None and id(step) not in self._results:
            self._results[id(step)] = await self._outcome(step, self._solve(solver, step))
            step = step.parent

    async def _layer(self, step: Step, solver: Solver) -> None:
        operation = step.operation
        if isinstance(operation, Copy) and operation.origin is not None and operation.origin.step is None:
            for source in operation.sources:
                if posixpath.normpath(source.lstrip("/")).split("/")[0] == "..":
                    raise BuildFailed(
                        f"{copy_errors.instruction(operation)} failed: "
                        f"forbidden path outside the build context: {source} ()"
                    )
        task = self._solve(solver, step)
        await self._stream.follow(step, task)
        self._results[id(step)] = await self._outcome(step, task)
        await self._collect_results(step.parent, solver)

    async def _outcome(self, step: Step, task: "asyncio.Task[Result]") -> Result:
        try:
            return await asyncio.shield(task)
        except StepFailed as error:
            sentence = f"The command '{error.command}' returned a non-zero code: {error.code}"
            raise BuildFailed(sentence, error.code) from None
        except StepRefused as error:
            raise BuildFailed(error.refusal) from None
        except WharfError as error:
            if isinstance(step.operation, Copy):
                root = self._context.root
                raise BuildFailed(
                    await asyncio.to_thread(copy_errors.copy_error, step.operation, root, error)
                ) from None
            raise BuildFailed(error.message) from None

    async def _finish(self, made: Plan) -> None:
        target, options = made.target, self._options
        if options.labels:
            shown = " ".join(f"{name}={value}" for name, value in sorted(options.labels.items()))
            await self._stream.step(self._total, self._total, f"LABEL {shown}")
            if await self._times.apply(target.config, target.last):
                await self._stream.write(" ---> Using cache\n")
        documents = await self._documents(target)
        if options.squash and target.last is not None:
            result = self._results[id(target.last)]
            documents = await squash(self._container_context.engine, documents, result, find_base(target.last))
        if options.labels:
            await self._stream.write(f" ---> {short_id(documents.id)}\n")
        base = self._bases.found
        image = next((found for found in base.values() if _is_base(target, found)), None)
        if image is not None:
            descriptor = image.target
        elif target.last is None and not target.config.history:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        else:
            descriptor = documents.target
        if not await self._images.is_built(descriptor.digest, options.tags):
            if image is None:
                await store(self._container_context.engine, documents)
                await self._times.save()
            await self._images.built(descriptor, options.tags)
        if options.quiet:
            await self._out.put({"stream": f"{descriptor.digest}\n"})
            return
        await self._out.put({"aux": {"ID": descriptor.digest}})
        if made.unused_args:
            names = " ".join(made.unused_args)
            await self._stream.write(f"[Warning] One or more build-args [{names}] were not consumed\n")
        await self._stream.write(f"Successfully built {short_id(descriptor.digest)}\n")
        for tag in options.tags:
            await self._stream.write(f"Successfully tagged {tag}\n")


def _is_base(target: PlannedStage, image: Image) -> bool:
    """Whether the target is this base image, unchanged."""
    operation = None if target.last is None else target.last.operation
    return isinstance(operation, Base) and operation.digest == image.id and not target.config.history
