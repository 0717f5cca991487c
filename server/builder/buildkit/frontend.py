"""The built-in front end ``dockerfile.v0``: turns a client's options and sources into results."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError, internal, invalid, not_found, not_implemented
from server.builder.buildkit.context_files import excluded_files, needed_paths
from server.builder.buildkit.subrequests import LINT, Subrequest, answer, lint_result
from server.builder.cache.remote import Remote as RemoteCache
from server.builder.classic.build import host_platform
from server.builder.classic.image import describe_in_thread, layer_chain
from server.builder.dockerfile import checks
from server.builder.dockerfile.errors import DockerfileError, Span, Warning
from server.builder.dockerfile.instructions import Dockerfile
from server.builder.dockerfile.lint import findings
from server.builder.dockerfile.parse import parse, parse_in_thread
from server.builder.jobs.failure import with_details
from server.builder.jobs.job import Job, SolvedTarget
from server.builder.jobs.options import BUILT_IN, check_options, limits
from server.builder.jobs.progress import StepProgress
from server.builder.neighbours import Images
from server.builder.operations.base_snapshots import BaseSnapshots
from server.builder.plan.plan import Options, Plan, PlannedStage, plan
from server.builder.plan.steps import SCRATCH, Base, Copy, Result, Run, Step
from server.builder.runner import TaskRunner
from server.builder.solver.builder import Builder
from server.builder.solver.keys import ancestry
from server.builder.solver.solve import Solver
from server.builder.sources.bases import Bases
from server.builder.sources.remotes import Remote
from server.builder.sources.sources import Sources
from server.containers.context import ContainerContext
from server.registry import oci


@dataclass(slots=True)
class Frontend:
    """Runs one solve of ``dockerfile.v0`` for a job."""

    container_context: ContainerContext
    images: Images
    builder: Builder
    job: Job
    sources: Sources
    options: Mapping[str, str]
    imports: Sequence[RemoteCache] = ()

    async def ask(self) -> Mapping[str, bytes]:
        """Answer a subrequest, which builds nothing."""
        options = self.options
        check_options(options)
        self.sources.named = _named_contexts(options)
        text, name = await self.sources.dockerfile(options.get("filename") or "Dockerfile")
        try:
            if options["requestid"] == LINT:
                return await self._check(text, name)
            file = await parse_in_thread(text.decode("utf-8", "replace"))
            given = _with_prefix(options, "build-arg:")
            return answer(options["requestid"], Subrequest(file, name, text, options.get("target", ""), given))
        except WharfError as error:
            raise with_details(error, file=name, text=text) from error

    async def _check(self, text: bytes, name: str) -> Mapping[str, bytes]:
        """Return the findings of build checks, and the error that would prevent the build."""
        found: Sequence[Warning] = ()
        config, file, failed = checks.Config(), None, None
        try:
            if f"build-arg:{checks.ARGUMENT}" in self.options:
                config = self._checks(None)
        except DockerfileError as error:
            raise invalid(error.message) from None  # the request is wrong, not the Dockerfile
        try:
            file = await parse_in_thread(text.decode("utf-8", "replace"))
            found = [*file.warnings, *findings(file)]
            config = self._checks(file)
            planned, _ = await self._plan(file, host_platform(), many=False)
            await self.sources.load_ignore()
            found = [*planned.warnings, *await excluded_files([planned], self.sources.ignore)]
        except WharfError as error:
            failed = error
            if isinstance(error, DockerfileError):
                found = error.warnings or found
        chosen = config.select(list(dict.fromkeys(found)))
        return lint_result(name, text, chosen, failed or config.error_for(chosen))

    async def solve(self) -> list[SolvedTarget]:
        """Return one result per platform. Raises errors with their lines (``failure.with_details``)."""
        options = self.options
        check_options(options)
        filename = options.get("filename") or "Dockerfile"
        self.sources.named = _named_contexts(options)
        text, name = await self.sources.dockerfile(filename)
        progress = StepProgress(self.job.send, self.job.ref)
        try:
            if not text:
                raise invalid("the Dockerfile cannot be empty")
            file = await parse_in_thread(text.decode("utf-8", "replace"))
            syntax = file.directives.get("syntax", "")
            if syntax and not BUILT_IN.match(syntax.split()[0]):
                refused = not_implemented(
                    f"front-end image {syntax} is not supported: only docker/dockerfile is, built in"
                )
                raise with_details(refused, file=name, text=text, span=_syntax(text))
            await self.sources.load_ignore()
            platforms = [_platform(item) for item in options.get("platform", "").split(",") if item]
            platforms = platforms or [host_platform()]
            plans = [(item, *await self._plan(file, item, many=len(platforms) > 1)) for item in platforms]
            for _, planned, _ in plans:
                _check_entitlements(planned, self.job.request.Entitlements)
            await self._warn([planned for _, planned, _ in plans], name, text)
            self.sources.follow = needed_paths([planned for _, planned, _ in plans])
            made = [await self._solve_target(item, planned, bases, progress, name) for item, planned, bases in plans]
        except WharfError as error:
            step = progress.failed
            if step is None:
                raise with_details(error, file=name, text=text) from error
            if error.kind is Kind.NOT_FOUND and isinstance(step.operation, Copy):
                what = f"failed to calculate checksum of ref {self.job.ref}::{progress.vertex(step).digest[7:32]}"
                error = not_found(f"failed to compute cache key: {what}: {error.message}")
            raise with_details(
                error, file=name, text=text, vertex=progress.vertex(step).digest, span=step.span
            ) from error
        return made

    async def fetch(self, remote: Remote) -> SolvedTarget:
        """Fetch a file or a repository that the client's part of the build reads."""
        progress = StepProgress(self.job.send, self.job.ref)
        text = f"FROM scratch\nADD {json.dumps([remote.url, remote.target])}\n"
        planned, bases = await self._plan(parse(text), host_platform(), many=False)
        assert planned.target.last is not None
        planned.target.last.name = remote.name
        return await self._solve_target(host_platform(), planned, bases, progress, "")

    async def _plan(self, file: Dockerfile, platform: str, *, many: bool) -> tuple[Plan, Bases]:
        options = self.options
        no_cache = options.get("no-cache")
        bases = Bases(
            self.images,
            self.container_context.engine,
            self.job,
            self.sources,
            pull=options.get("image-resolve-mode") == "pull",
            platform=platform,
        )
        network = options.get("force-network-mode", "")
        planned = await plan(
            file,
            Options(
                target=options.get("target", ""),
                build_args=_with_prefix(options, "build-arg:"),
                labels=_with_prefix(options, "label:"),
                platform=platform,
                build_platform=host_platform(),
                no_cache=no_cache == "",
                no_cache_stages=frozenset((no_cache or "").lower().split(",")) - {""},
                network={"host": "host", "none": "none"}.get(network, "default"),
                multi_platform=many,
            ),
            bases,
        )
        return planned, bases

    async def _solve_target(
        self, platform: str, planned: Plan, bases: Bases, progress: StepProgress, name: str
    ) -> SolvedTarget:
        options = self.options
        epoch = options.get("build-arg:SOURCE_DATE_EPOCH", "")
        epoch_ns = int(epoch) * 10**9 if epoch.isdigit() else None
        runner = TaskRunner(self.container_context, limits(options), self.builder.caller)
        base_snapshots = BaseSnapshots(bases.unpack)
        solver = Solver(self.builder, self.sources, runner, progress, epoch_ns, self.imports, base_snapshots)
        self.job.solvers.append(solver)
        target = planned.target
        _announce(progress, target)
        now_ns = time.time_ns()
        while True:
            results = await _results(solver, target.last)
            documents = await describe_in_thread(target.config, target.last, results, now_ns=now_ns, epoch_ns=epoch_ns)
            # Layers of an existing image exist. Layers that only the cache refers to may have been removed.
            if await self.images.is_built(documents.id, ()) or await solver.verify(target.last):
                break
        solver.show_skipped(target.last)
        exports = self.job.request.Cache.Exports
        everything = any(entry.Attrs.get("mode") == "max" for entry in exports)
        others = [stage.last for stage in planned.stages if stage is not target] if everything else []
        return SolvedTarget(
            f"{self.job.ref}-{len(self.job.made)}-{platform}",
            documents,
            # The client looks for the requested platform, whatever the platform of the base image is.
            platform if options.get("platform") else target.platform,
            await _chain(solver, target.last, llb=bool(exports)),
            tuple([await _chain(solver, last, llb=True) for last in others]),
            len(target.config.base_diff_ids),
            tuple(sorted({(key.rpartition(" ")[0], image.target.digest) for key, image in bases.found.items()})),
            epoch_ns,
            name,
            any(isinstance(step.operation, Run) and step.operation.network != "none" for step in _steps(planned)),
        )

    async def _warn(self, plans: Sequence[Plan], name: str, text: bytes) -> None:
        """Show the findings of build checks, once for all platforms.

        Raises if the Dockerfile or the client treats findings as errors.
        """
        config = self._checks(plans[0].dockerfile)
        found = [warning for planned in plans for warning in planned.warnings]
        found = sorted([*found, *await excluded_files(plans, self.sources.ignore)], key=lambda item: item.span.first)
        chosen = config.select(list(dict.fromkeys(found)))
        for warning in chosen:
            if self.sources.definition is not None:
                self.sources.definition.warn(warning, name, text)
        if error := config.error_for(chosen):
            raise error

    def _checks(self, file: Dockerfile | None) -> checks.Config:
        directive = file.directives.get("check", "") if file is not None else ""
        return checks.config(directive, self.options.get(f"build-arg:{checks.ARGUMENT}", ""))


def _check_entitlements(planned: Plan, allowed: Sequence[str]) -> None:
    """Check that the client allows the steps' privileges. Raises PERMISSION_DENIED in BuildKit's words."""
    for step in _steps(planned):
        operation = step.operation
        if isinstance(operation, Run):
            for needed, name in (
                (operation.network == "host", "network.host"),
                (operation.security == "insecure", "security.insecure"),
            ):
                if needed and name not in allowed:
                    raise WharfError(Kind.PERMISSION_DENIED, f"failed to load LLB: {name} is not allowed")


def _steps(planned: Plan) -> Iterator[Step]:
    """Yield all steps of all needed stages."""
    for stage in planned.stages:
        step = stage.last
        while step is not None:
            yield step
            step = step.parent


def _announce(progress: StepProgress, target: PlannedStage) -> None:
    """Announce every step before the first one runs, so that the display knows their number."""
    step = target.last
    if step is not None:
        progress.vertex(step)


async def _results(solver: Solver, last: Step | None) -> dict[int, Result]:
    """Return the results of a chain of solved steps."""
    found: dict[int, Result] = {}
    step = last
    while step is not None:
        found[id(step)] = await solver.solve(step)
        step = step.parent
    assert len(found) >= len(layer_chain(last))
    return found


async def _chain(solver: Solver, last: Step | None, *, llb: bool) -> tuple[Result, ...]:
    """Return the known results of a chain of steps, starting with its base or an empty root."""
    found = await solver.known_results(last, llb=llb)
    based = isinstance(next(ancestry(last)).operation, Base) if last is not None else False
    return tuple(found if based else [SCRATCH, *found])


def _named_contexts(options: Mapping[str, str]) -> dict[str, str]:
    """Return the named contexts; names are case-insensitive."""
    found = {name.lower(): value for name, value in _with_prefix(options, "context:").items()}
    # The slashes after the scheme are optional.
    return {name: re.sub(r"^(docker-image|oci-layout):(?!//)", r"\1://", value) for name, value in found.items()}


def _with_prefix(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}


def _platform(text: str) -> str:
    """Normalise a platform of the client. Raises INVALID_ARGUMENT."""
    return host_platform() if text == "local" else oci.format_platform(oci.parse_platform(text))


def _syntax(text: bytes) -> Span:
    """Return the line of the syntax directive."""
    lines = text.decode("utf-8", "replace").splitlines()
    found = (number for number, line in enumerate(lines, 1) if re.match(r"\s*(#|//)\s*syntax\s*=", line, re.IGNORECASE))
    number = next(found, 1)
    return Span(number, number)


def platforms_json(made: Sequence[SolvedTarget]) -> bytes:
    """Encode ``refs.platforms`` of a result with several platforms."""
    entries = []
    for item in made:
        os, arch, variant = (*item.platform.split("/"), "", "")[:3]
        platform = {"architecture": arch, "os": os, **({"variant": variant} if variant else {})}
        entries.append({"ID": item.platform, "Platform": platform})
    return json.dumps({"Platforms": entries}).encode()


def only(made: Sequence[SolvedTarget]) -> SolvedTarget:
    """Return the single result of a build for one platform."""
    if len(made) != 1:
        raise internal("one result was expected")
    return made[0]
