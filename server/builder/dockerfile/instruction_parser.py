"""Parses logical lines to typed instructions. The error sentences are those of dockerd's two builders."""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from engine.common.errors import Reason
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span, Warning
from server.builder.dockerfile.flags import Flags, mount
from server.builder.dockerfile.lines import Line
from server.builder.dockerfile.words import closest, duration, json_list, pairs, split_words, take_flags

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_STAGE_NAME = re.compile(r"^[a-z][a-z0-9-_.]*$")


class Parser:
    """Parses the instructions of one Dockerfile; collects warnings."""

    def __init__(self, escape: str) -> None:
        self.escape = escape
        self.warnings: list[Warning] = []
        self._shell = False  # whether the stage has a SHELL instruction

    def warn(self, rule: str, message: str, span: Span) -> None:
        self.warnings.append(Warning(rule, message, span))

    def instruction(self, line: Line) -> ins.Instruction:
        keyword, _, rest = line.text.partition(" ")
        match = re.match(r"\S+", line.text)
        if match is not None:
            keyword, rest = match[0], line.text[match.end() :].strip()
        name = keyword.upper()
        try:
            handler = _HANDLERS[name]
        except KeyError:
            raise _unknown_instruction(keyword, line.span) from None
        flags, rest = take_flags(rest, self.escape)
        try:
            return handler(self, line, name, Flags(name, flags), rest)
        except DockerfileError as error:
            if error.span is None:
                error.span = line.span
                error.numbered = error.numbered is not False
            raise

    def _words(self, text: str) -> list[str]:
        words = json_list(text)
        return _BLANKS.split(text.strip()) if words is None and text.strip() else words or []

    def from_(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        platform = flags.text("platform")
        flags.done()
        words = split_words(rest, self.escape)
        stage = ""
        if len(words) == 3 and words[1].upper() == "AS":
            stage = words[2].lower()
            if not _STAGE_NAME.match(stage):
                raise DockerfileError(
                    f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
                )
            if stage != words[2]:
                self.warn("StageNameCasing", f"Stage name '{words[2]}' should be lowercase", line.span)
            keyword = line.text.split(None, 1)[0]
            if words[1].isupper() != keyword.isupper():
                self.warn("FromAsCasing", f"'{words[1]}' and '{keyword}' keywords' casing do not match", line.span)
            if stage in ("context", "scratch"):
                sentence = f'Stage name should not use the same name as reserved stage "{stage}"'
                self.warn("ReservedStageName", sentence, line.span)
        elif len(words) != 1:
            raise DockerfileError("FROM requires either one or three arguments")
        self._description("FROM", [stage] if stage else [], line)
        self._shell = False
        return ins.From(line.span, line.text, words[0], stage, platform, _description_of(line.comments, stage))

    def arg(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        words = split_words(rest, self.escape)
        if not words:
            raise DockerfileError("ARG requires at least one argument")
        values: list[tuple[str, str | None]] = []
        comments: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not key:
                raise DockerfileError("ARG names can not be blank")
            values.append((key, value if equals else None))
            about = _description_of(line.comments, key)
            if about:
                comments[key] = about
        self._description("ARG", [key for key, _ in values], line)
        return ins.Arg(line.span, line.text, tuple(values), comments)

    def _description(self, what: str, names: Sequence[str], line: Line) -> None:
        """Warn about a comment directly above that describes none of the names."""
        if names and line.comments and line.comments[-1].split(" ", 1)[0] not in names:
            shown = names[0] if len(names) == 1 else "<arg_key>"
            self.warn(
                "InvalidDefinitionDescription",
                f"Comment for {what} should follow the format: `# {shown} <description>`",
                line.span,
            )

    def env(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        found, old = pairs(rest, self.escape, instruction=name)
        if old:
            self.warn(
                "LegacyKeyValueFormat",
                f'"{name} key=value" should be used instead of legacy "{name} key value" format',
                line.span,
            )
        make = ins.Env if name == "ENV" else ins.Label
        return make(line.span, line.text, tuple(found))

    def run(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        mounts = tuple(mount(text) for text in flags.list("mount"))
        network = flags.text("network") or "default"
        if network not in ("default", "none", "host"):
            raise DockerfileError(f"invalid network mode {json.dumps(network)}")
        security = flags.choice("security", ("sandbox", "insecure"), default="sandbox")
        device = tuple(flags.list("device"))
        flags.done()
        args = json_list(rest)
        shell = args is None
        if args is None and not rest and not line.heredocs:
            raise DockerfileError("RUN requires at least one argument")
        return ins.Run(
            line.span,
            line.text,
            (rest,) if args is None else tuple(args),
            shell,
            line.heredocs,
            mounts,
            network,
            security,
            device,
        )

    def command(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        args = json_list(rest)
        if args is None:
            if rest and not self._shell:
                self.warn(
                    "JSONArgsRecommended",
                    f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals",
                    line.span,
                )
            args_tuple: tuple[str, ...] = (rest,) if rest else ()
            return ins.Command(line.span, line.text, name == "ENTRYPOINT", args_tuple, shell=True)
        return ins.Command(line.span, line.text, name == "ENTRYPOINT", tuple(args), shell=False)

    def copy(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        add = name == "ADD"
        from_ = "" if add else flags.text("from")
        chown, chmod = flags.text("chown"), flags.text("chmod")
        link = flags.boolean("link")
        exclude = tuple(flags.list("exclude"))
        parents = False if add else flags.boolean("parents")
        checksum = flags.text("checksum") if add else ""
        keep = flags.boolean("keep-git-dir") if add else False
        unpack = flags.optional("unpack") if add else None
        flags.done()
        words = self._words(rest)
        if not words:
            raise DockerfileError(f"{name} requires at least one argument")
        names = {f"<<{document.name}" for document in line.heredocs}
        if len(words) == 1:
            raise DockerfileError(
                f"{name} requires at least two arguments, but only one was provided. "
                "Destination could not be determined"
            )
        sources = tuple(word for word in words[:-1] if not _is_heredoc(word, names))
        return ins.Copy(
            line.span,
            line.text,
            sources,
            words[-1],
            line.heredocs,
            add,
            from_,
            chown,
            chmod,
            link,
            parents,
            exclude,
            checksum,
            keep,
            unpack,
        )

    def shell(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        args = json_list(rest)
        if args is None:
            raise DockerfileError("SHELL requires the arguments to be in JSON form")
        if not args:
            raise DockerfileError("SHELL requires at least one argument")
        self._shell = True
        return ins.Shell(line.span, line.text, tuple(args))

    def healthcheck(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        times = {key: _interval(flags.text(key), key) for key in ("interval", "timeout", "start-period")}
        times["start-interval"] = _interval(flags.text("start-interval"), "start-interval")
        retries_text = flags.text("retries")
        flags.done()
        retries = 0
        if retries_text:
            try:
                retries = int(retries_text)
            except ValueError:
                raise DockerfileError(f"strconv.ParseInt: parsing {json.dumps(retries_text)}: invalid syntax") from None
            if retries < 0:
                raise DockerfileError(f"--retries cannot be negative ({retries})")
        kind, _, body = rest.partition(" ")
        kind = kind.upper()
        if not kind:
            raise DockerfileError("HEALTHCHECK requires at least one argument")
        if kind == "NONE":
            if body.strip():
                raise DockerfileError("HEALTHCHECK NONE takes no arguments")
            test: tuple[str, ...] = ("NONE",)
        elif kind == "CMD":
            body = body.strip()
            args = json_list(body)
            if not body or args == []:
                raise DockerfileError("Missing command after HEALTHCHECK CMD")
            test = ("CMD-SHELL", body) if args is None else ("CMD", *args)
        else:
            raise DockerfileError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
        return ins.Healthcheck(
            line.span,
            line.text,
            test,
            times["interval"],
            times["timeout"],
            times["start-period"],
            times["start-interval"],
            retries,
        )

    def one(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        if not rest:
            raise DockerfileError(f"{name} requires exactly one argument")
        if name == "MAINTAINER":
            self.warn("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", line.span)
            return ins.Maintainer(line.span, line.text, rest)
        if len(split_words(rest, self.escape)) != 1 and name == "STOPSIGNAL":
            raise DockerfileError(f"{name} requires exactly one argument")
        if name == "WORKDIR":
            return ins.Workdir(line.span, line.text, rest)
        if name == "USER":
            return ins.User(line.span, line.text, rest)
        return ins.StopSignal(line.span, line.text, rest)

    def several(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        words = self._words(rest) if name == "VOLUME" else split_words(rest, self.escape)
        if not words:
            raise DockerfileError(f"{name} requires at least one argument")
        if name == "VOLUME":
            if any(not word.strip() for word in words):
                raise DockerfileError("VOLUME specified can not be an empty string")
            return ins.Volume(line.span, line.text, tuple(words))
        return ins.Expose(line.span, line.text, tuple(words))

    def onbuild(self, line: Line, name: str, flags: Flags, rest: str) -> ins.Instruction:
        flags.done()
        if not rest:
            raise DockerfileError("ONBUILD requires at least one argument")
        trigger = rest.split(None, 1)[0].upper()
        if trigger == "ONBUILD":
            raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in ("MAINTAINER", "FROM"):
            raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
        text = rest
        for document in line.heredocs:
            text += "\n" + document.content + document.name
        return ins.OnBuild(line.span, line.text, text)


_Handler = Callable[[Parser, Line, str, Flags, str], ins.Instruction]
_HANDLERS: Mapping[str, _Handler] = {
    "ADD": Parser.copy,
    "ARG": Parser.arg,
    "CMD": Parser.command,
    "COPY": Parser.copy,
    "ENTRYPOINT": Parser.command,
    "ENV": Parser.env,
    "EXPOSE": Parser.several,
    "FROM": Parser.from_,
    "HEALTHCHECK": Parser.healthcheck,
    "LABEL": Parser.env,
    "MAINTAINER": Parser.one,
    "ONBUILD": Parser.onbuild,
    "RUN": Parser.run,
    "SHELL": Parser.shell,
    "STOPSIGNAL": Parser.one,
    "USER": Parser.one,
    "VOLUME": Parser.several,
    "WORKDIR": Parser.one,
}


def _is_heredoc(word: str, names: set[str]) -> bool:
    plain = word.replace("'", "").replace('"', "").replace("<<-", "<<", 1)
    return word.startswith("<<") and plain in names


def _description_of(comments: Sequence[str], name: str) -> str:
    """Return the comment ``# name text`` directly above a stage or argument."""
    for comment in comments:
        first, _, text = comment.partition(" ")
        if name and first == name and text:
            return text.strip()
    return ""


def _interval(text: str, name: str) -> int:
    if not text:
        return 0
    value = duration(text)
    if value and value < 1_000_000:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms')
    return value


def _unknown_instruction(keyword: str, span: Span) -> DockerfileError:
    meant = closest(keyword, tuple(_HANDLERS))
    # As BuildKit's suggest.WrapError: upper case if the keyword is in upper case, else lower case.
    hint = f" (did you mean {meant.upper() if keyword.isupper() else meant.lower()}?)" if meant else ""
    sentence = f"unknown instruction: {keyword}{hint}"
    return DockerfileError(sentence, span, numbered=True, reason=Reason.UNKNOWN_INSTRUCTION)
