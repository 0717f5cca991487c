"""Plans one stage: applies its instructions in order to the arguments, the configuration and the last step."""

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.common.errors import invalid
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span
from server.builder.dockerfile.expand import expand_heredoc
from server.builder.dockerfile.flags import check_sharing, check_target, check_type
from server.builder.dockerfile.parse import parse_instruction
from server.builder.plan import formatting, metadata
from server.builder.plan.context import PlanContext
from server.builder.plan.imageconfig import CreatedBy, History, ImageConfig
from server.builder.plan.model import IMAGES, Line, PlannedStage, Variables
from server.builder.plan.steps import Base, Copy, Origin, ResolvedMount, Run, Step, Workdir


class StagePlanner:
    """Applies a stage's instructions; its state is the arguments, the configuration and the last step."""

    def __init__(self, planner: PlanContext, stage: ins.Stage) -> None:
        self.planner, self.stage = planner, stage
        self.options = planner.options
        self.args: dict[str, str] = {}
        self.lines: list[Line] = []
        self.last: Step | None = None
        self.base_ref = ""
        self.platform = self.options.platform
        self.config = ImageConfig.scratch(os="linux", architecture="amd64")
        self.no_cache = self.options.no_cache or stage.name.lower() in self.options.no_cache_stages
        self.cmd_set = False
        self.number = 0
        """The number of the planned step. A base image counts as the first; an empty root or another stage does not
        count."""
        self.names: dict[str, None] = {}
        """Names in the environment and the arguments, in the order of their last assignment."""
        self.declared: dict[str, None] = {}
        """Names declared by ``ARG``, in order, with or without a value."""

    @property
    def variables(self) -> Mapping[str, str]:
        """A live view of the environment and the arguments."""
        return Variables(self.config.env, self.args)

    def expand(self, text: str, span: Span) -> str:
        return self.planner.expand(text, self.variables, span)

    async def run(self) -> PlannedStage:
        own = self.stage.base.name
        replaced = bool(own) and self.planner.bases.named_context(own) is not None
        await self._from(own if replaced else "")
        span = self.stage.base.span
        instructions: list[tuple[ins.Instruction, bool]] = []
        if not replaced:
            instructions += [(parse_instruction(text, span=span), True) for text in self.config.onbuild]
            self.config.clear_triggers()
            instructions += [(instruction, False) for instruction in self.stage.instructions]
        steps = sum(isinstance(item, ins.Run | ins.Copy | ins.Workdir) for item, _ in instructions)
        self.total = steps + self.number
        if self.last is not None and isinstance(self.last.operation, Base) and not self.last.name:
            self.last.name = self._name(f"FROM {self.base_ref}", {})
        for instruction, trigger in instructions:
            step = await self._apply(instruction)
            self.lines.append(Line(instruction, step, self.config.clone(), trigger))
        named = tuple(self.names)
        return PlannedStage(
            self.stage, self.base_ref, self.last, self.config, self.lines, self.platform, self.args, named
        )

    def _name(self, text: str, variables: Mapping[str, str]) -> str:
        parts = []
        if self.options.multi_platform:
            parts.append(self.platform + formatting.cross(self.platform, variables))
        if self.planner.many:
            parts.append(self.stage.name)
        parts.append(f"{self.number:{len(str(self.total))}}/{self.total}")
        return f"[{' '.join(parts)}] {text}"

    async def _from(self, instead: str) -> None:
        """``instead``: a named context that replaces the whole stage."""
        base = self.stage.base
        known = self.planner.arguments
        name = instead or self.planner.expand(base.image, known, base.span)
        if not name:
            raise DockerfileError(f"base name ({base.image}) should not be blank", base.span)
        if base.platform:
            self.platform = self.planner.platform(base)
        index = self.planner.names.get(name.lower())
        if not instead and index is not None and index != self.stage.index:
            parent = await self.planner.stage(index)
            self.base_ref, self.last, self.platform = parent.base_ref, parent.last, parent.platform
            self.config = parent.config.clone()
            # A stage's environment starts with the variables of its image.
            self.names = dict.fromkeys(
                [*(set_ for set_ in parent.names if set_ not in self.config.env), *self.config.env]
            )
            if not self.options.classic:
                # Arguments of the parent stage are visible in this one.
                self.args = dict(parent.args)
            return
        os, arch, variant = (*self.platform.split("/"), "", "")[:3]
        context = self.planner.bases.named_context(name) if name != "scratch" else None
        if "scratch" in (name, (context or "").removeprefix("docker-image://")):
            self.base_ref = "scratch"
            self.config = ImageConfig.scratch(os=os, architecture=arch, variant=variant)
            if not self.options.classic:
                self.config.config["WorkingDir"] = "/"
            return
        if context is not None and not context.startswith(IMAGES):
            # A named context replaces the base: its files on an empty root.
            self.base_ref = name
            self.config = ImageConfig.scratch(os=os, architecture=arch, variant=variant)
            origin = Origin(context=name)
            self.number = 1
            self.last = Step(Copy((".",), "/", origin), None, f"[context {name}] load", base.span)
            return
        ref = context.removeprefix("docker-image://") if context else name
        image = await self.planner.image(ref, base.span, platform=self.platform, step=self.stage.name)
        self.base_ref = image.base.ref
        self.config = ImageConfig.of_image(image.config)
        if self.options.default_path:
            self.config.ensure_path()
        self.names = dict.fromkeys(self.config.env)
        self.number = 1
        self.last = Step(replace(image.base, platform=self.platform), None, "", base.span, stage=self.stage.name)

    def _step(self, operation: Run | Copy | Workdir, instruction: ins.Instruction) -> Step:
        self.number += 1
        shown = formatting.title(instruction, self.variables, self.planner.file.escape, self.planner.budget)
        self.last = Step(
            operation,
            self.last,
            self._name(shown, self.variables),
            instruction.span,
            self.no_cache,
            self.stage.name,
            created_by=self.config.created_by if self.options.classic else CreatedBy(),
        )
        return self.last

    def history(self, buildkit: str, classic: str, *, layer: bool = False) -> None:
        text = classic if self.options.classic else buildkit
        if not text and not layer:
            return
        comment = "" if self.options.classic else "buildkit.dockerfile.v0"
        self.config.history.append(History(text, empty_layer=not layer, comment=comment))

    async def _apply(self, item: ins.Instruction) -> Step | None:
        handler = _APPLY[type(item)]
        found = handler(self, item)
        return await found if isinstance(found, Awaitable) else found

    def _arg(self, item: ins.Arg) -> None:
        planner = self.planner
        for name, default in item.values:
            name = self.expand(name, item.span)
            value: str | None = None
            if name in self.options.build_args:
                planner.used_args.add(name)
                value = self.options.build_args[name]
            if value is None and default is not None:
                value = self.expand(default, item.span)
            if value is None:
                value = planner.arguments.get(name)
            self.declared[name] = None
            if value is not None:
                self.args[name] = value
                self._named(name)
        text = item.original.split(None, 1)[1]
        self.history(f"ARG {text}", formatting.nop(f"ARG {text}"))

    def _named(self, name: str) -> None:
        self.names.pop(name, None)
        self.names[name] = None

    def _env(self, item: ins.Env) -> None:
        # All values are expanded with the variables from before the instruction.
        values = [(self.expand(name, item.span), self.expand(text, item.span)) for name, text in item.values]
        shown = []
        for key, value in values:
            self.config.set_env(key, value)
            self._named(key)
            shown.append(f"{key}={value}")
        self.history(f"ENV {' '.join(shown)}", formatting.nop(f"ENV {' '.join(shown)}"))

    def _given(self) -> str:
        """The arguments in the history of a ``RUN``: in order of declaration, or sorted for the classic builder."""
        names = list(self.declared)
        if self.options.classic:
            names = sorted(name for name in names if name in self.args and name not in self.config.env)
        given = [f"{name}={self.variables.get(name, '')}" for name in names]
        return f"|{len(given)} {' '.join(given)} " if given else ""

    async def _run(self, item: ins.Run) -> Step:
        args, files, shown = formatting.process(item, self.config.shell)
        args = args or self._own_command(item.span)
        mounts = [await self._mount(option, item.span) for option in item.mounts]
        env = {**{key: value for key, value in self.args.items() if key not in self.config.env}, **self.config.env}
        # Each step stores its own copy of the environment.
        self.planner.spend(sum(len(key) + len(value) for key, value in env.items()), item.span)
        hidden = formatting.proxies(self.options.build_args, env, both=not self.options.classic)
        volumes: tuple[str, ...] = ()
        if self.options.classic:
            formatting.refuse_flags(item, "mount", "network", "security")
            volumes = tuple(path for path in sorted(self.config.volumes) if path.startswith("/"))
        network = item.network if item.network != "default" else self.options.network
        operation = Run(
            args,
            tuple(f"{key}={value}" for key, value in env.items()),
            self.config.workdir,
            self.config.user,
            tuple(mounts),
            network,
            item.security,
            files,
            tuple(f"{key}={value}" for key, value in hidden.items()),
            volumes,
            tuple(self.names),
            self.platform,
        )
        self.history(f"RUN {self._given()}{shown} # buildkit", self._given() + shown, layer=True)
        return self._step(operation, item)

    def _own_command(self, span: Span) -> tuple[str, ...]:
        """Return the command of ``RUN []``: the classic builder runs the image's own command.

        Raises INVALID_ARGUMENT if there is none, and, in BuildKit's words, for BuildKit.
        """
        if not self.options.classic:
            raise invalid("failed to marshal LLB definition: arguments are required")
        for name in ("Entrypoint", "Cmd"):
            words = self.config.config.get(name)
            if isinstance(words, list) and words:
                return tuple(str(word) for word in words)
        raise DockerfileError("no command specified", span)

    async def _mount(self, option: ins.Mount, span: Span) -> ResolvedMount:
        names = ("type", "sharing", "source", "target", "id", "mode", "uid", "gid", "size")
        texts: dict[str, Any] = {name: self.expand(getattr(option, name), span) for name in names}
        resolved = replace(option, **texts)
        check_type(resolved.type)
        check_sharing(resolved.sharing)
        check_target(resolved.type, resolved.target, span)
        if resolved.target and not resolved.target.startswith("/"):
            resolved = replace(
                resolved, target=posixpath.normpath(posixpath.join(self.config.workdir, resolved.target))
            )
        origin: Origin | None = None
        if resolved.from_:
            sentence = (
                f'cannot mount from stage "{resolved.from_}" to "{resolved.target}", '
                "stage needs to be defined before current command"
            )
            origin = await self.planner.origin(resolved.from_, span, before=self.stage.index, out_of_order=sentence)
        elif resolved.type == "bind":
            origin = Origin(context="")
        return ResolvedMount(resolved, origin)

    async def _copy(self, item: ins.Copy) -> Step:
        if self.options.classic:
            formatting.refuse_flags(item, "chmod")
        sources = tuple(self.expand(source, item.span) for source in item.sources)
        target = self.expand(item.target, item.span)
        files = tuple(
            (
                document.name,
                self._heredoc(document.content, item.span) if document.expand else document.content,
            )
            for document in item.heredocs
        )
        many = len(sources) + len(files) > 1
        name = "ADD" if item.add else "COPY"
        if self.options.classic and many and not target.endswith("/") and target not in (".", ".."):
            raise DockerfileError(
                f"When using {name} with more than one source file, the destination must be a directory "
                "and end with a /",
                item.span,
            )
        urls = tuple(source for source in sources if item.add and formatting.is_url(source))
        local = tuple(source for source in sources if source not in urls)
        checksum = self.expand(item.checksum, item.span)
        if checksum and not self.options.classic:
            formatting.check_checksum(checksum, urls, item.span)
        chown = self.expand(item.chown, item.span)
        if self.options.classic and chown and ":" not in chown and not chown.isdigit():
            # The classic builder looks up a group of the user's name; BuildKit uses the user's group.
            chown = f"{chown}:{chown}"
        origin: Origin | None = None
        if from_ := item.from_:
            formatting.refuse_variable(self.options, from_)
            name = self.stage.base.name or str(self.stage.index)
            sentence = f'cannot copy from stage "{from_}", it needs to be defined before current stage "{name}"'
            origin = await self.planner.origin(from_, item.span, before=self.stage.index, out_of_order=sentence)
        elif local:
            origin = Origin(context="")
        absolute = posixpath.join(self.config.workdir, target)
        absolute = posixpath.normpath(absolute) + ("/" if target.endswith(("/", "/.")) or target in (".", "") else "")
        operation = Copy(
            sources=local,
            target="/" if absolute == "//" else absolute,
            origin=origin,
            files=files,
            urls=urls,
            chown=chown,
            chmod=self.expand(item.chmod, item.span),
            link=item.link,
            parents=item.parents,
            exclude=tuple(self.expand(pattern, item.span) for pattern in item.exclude),
            unpack=item.add if item.unpack is None else item.unpack,
            checksum=checksum,
            keep_git_dir=item.keep_git_dir,
            add=item.add,
            may_match_nothing=not self.options.classic,
        )
        text = f"{formatting.copied(item, sources, target)} # buildkit"
        self.history(text, formatting.copied_classic(name, operation), layer=True)
        return self._step(operation, item)

    def _heredoc(self, content: str, span: Span) -> str:
        variables = self.variables
        escape = self.planner.file.escape
        budget = self.planner.budget
        found = self.planner.checked(
            lambda: expand_heredoc(content, variables, escape=escape, budget=budget), span, content
        )
        return found.text

    def _workdir(self, item: ins.Workdir) -> Step:
        path = posixpath.normpath(posixpath.join(self.config.workdir, self.expand(item.path, item.span)))
        path = "/" if path == "//" else path
        self.config.config["WorkingDir"] = path
        self.history(f"WORKDIR {path}", formatting.nop(f"WORKDIR {path}"), layer=True)
        user = "" if self.options.classic else self.config.user
        return self._step(Workdir(path, user), item)


_APPLY: Mapping[type[ins.Instruction], Callable[..., Step | Awaitable[Step] | None]] = {
    ins.Arg: StagePlanner._arg,
    ins.Command: metadata.command,
    ins.Copy: StagePlanner._copy,
    ins.Env: StagePlanner._env,
    ins.Expose: metadata.expose,
    ins.Healthcheck: metadata.healthcheck,
    ins.Label: metadata.label,
    ins.Maintainer: metadata.maintainer,
    ins.OnBuild: metadata.onbuild,
    ins.Run: StagePlanner._run,
    ins.Shell: metadata.shell,
    ins.StopSignal: metadata.stopsignal,
    ins.User: metadata.user,
    ins.Volume: metadata.volume,
    ins.Workdir: StagePlanner._workdir,
}
