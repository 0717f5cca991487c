"""Build checks of a whole Dockerfile; the parser itself reports findings about single instructions.

Rules and sentences: the build checks of the published Dockerfile reference.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from engine.common import limits
from engine.common.errors import WharfError
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import Span, Warning
from server.builder.dockerfile.expand import expand
from server.builder.dockerfile.ignore import Ignore
from server.builder.dockerfile.words import closest

_VARIABLE = re.compile(r"\$(?:\{(\w+)|(\w+))")
_SECRET = re.compile(
    r"(?i)(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)",
)
_PUBLIC = re.compile(r"(?i)(?:^|_)public(?:_|$)")
PLATFORM_ARGS = frozenset(
    f"{side}{part}" for side in ("BUILD", "TARGET") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
) | {"TARGETSTAGE"}


def findings(file: ins.Dockerfile) -> list[Warning]:
    """Return the findings about the text, in the order of the lines."""
    found = [
        *_casing(file),
        *_stage_names(file),
        *_froms(file),
        *_repeated(file),
        *_workdirs(file),
        *_secrets(file),
        *_ports(file),
    ]
    return sorted(found, key=lambda item: item.span.first)


def ignored(copies: Iterable[tuple[str, Sequence[str], Span | None]], ignore: Ignore) -> list[Warning]:
    """Return findings about copied files that ``.dockerignore`` excludes. ``copies``: the instructions, their sources
    and lines."""
    found: list[Warning] = []
    named = ((name, source, span) for name, sources, span in copies for source in sources)
    for name, source, span in islice(named, limits.COMPARED_SOURCES):
        path = posixpath.normpath("/" + source).lstrip("/")
        if span is not None and path and ignore.ignores(path):
            sentence = f"Attempting to {name} file {json.dumps(path)} that is excluded by .dockerignore"
            found.append(Warning("CopyIgnoredFile", sentence, span))
    return found


def platform_mismatch(ref: str, config: Mapping[str, object], platform: str, span: Span) -> Warning | None:
    """Return a finding if a base image has another platform (``os/arch…``) than the requested one."""
    found, expected = [str(config.get("os")), str(config.get("architecture"))], platform.split("/")
    if found == expected[:2]:
        return None
    actual = "/".join([*found, *filter(None, (str(config.get("variant") or ""),))])
    sentence = f'Base image {ref} was pulled with platform "{actual}", expected "{platform}" for current build'
    return Warning("InvalidBaseImagePlatform", sentence, span)


def undefined(file: ins.Dockerfile, unknown: Iterable[tuple[str, Span, Sequence[str]]]) -> list[Warning]:
    """Return findings about variables without a value. ``unknown``: their names, locations, and known names there."""
    elsewhere = {item.span for item in file.arguments} | {stage.base.span for stage in file.stages}
    found: dict[tuple[str, Span], Warning] = {}
    for name, span, known in unknown:
        if span in elsewhere or name in _declared(file, span):
            continue
        found[name, span] = Warning(
            "UndefinedVar", f"Usage of undefined variable '${name}'{suggestion(name, known, '$')}", span
        )
    return list(found.values())


def suggestion(name: str, known: Iterable[str], sign: str = "") -> str:
    """Return the end of a sentence that suggests a known name for an unknown one."""
    meant = closest(name, sorted(islice(known, limits.SUGGESTED_NAMES)))
    return f" (did you mean {sign}{meant}?)" if meant else ""


def _declared(file: ins.Dockerfile, span: Span) -> set[str]:
    """The arguments of the stage that contains a line, and of its parent stages."""
    names: set[str] = set()
    stage = next((each for each in reversed(file.stages) if each.base.span.first <= span.first), None)
    by_name = {each.base.name: each for each in file.stages if each.base.name}
    while stage is not None:
        before = [item for item in stage.instructions if item.span.first <= span.first]
        names |= {name for item in before if isinstance(item, ins.Arg) for name, _ in item.values}
        below = by_name.get(stage.base.image.lower())
        stage = below if below is not None and below.index < stage.index else None
    return names


def _every(file: ins.Dockerfile) -> Iterator[ins.Instruction]:
    yield from file.arguments
    for stage in file.stages:
        yield stage.base
        yield from stage.instructions


def _casing(file: ins.Dockerfile) -> Iterator[Warning]:
    words = [(item.original.split(None, 1)[0], item.span) for item in _every(file)]
    lower = sum(word.islower() for word, _ in words)
    upper = sum(word.isupper() for word, _ in words)
    most = "lowercase" if lower > upper else "uppercase"
    for word, span in words:
        if not (word.islower() if most == "lowercase" else word.isupper()):
            yield Warning(
                "ConsistentInstructionCasing",
                f"Command '{word}' should match the case of the command majority ({most})",
                span,
            )


def _stage_names(file: ins.Dockerfile) -> Iterator[Warning]:
    seen: set[str] = set()
    for stage in file.stages:
        name = stage.base.name
        if name and name in seen:
            sentence = f"Duplicate stage name {json.dumps(name)}, stage names should be unique"
            yield Warning("DuplicateStageName", sentence, stage.base.span)
        seen.add(name)


def _names(text: str) -> list[str]:
    return [match[1] or match[2] for match in _VARIABLE.finditer(text)]


def _froms(file: ins.Dockerfile) -> Iterator[Warning]:
    defaults = {name: value for item in file.arguments for name, value in item.values}
    known = {*defaults, *PLATFORM_ARGS}
    values: dict[str, str | None] = {**dict.fromkeys(PLATFORM_ARGS, "x"), **defaults}
    given = {key: value for key, value in values.items() if value is not None}
    for stage in file.stages:
        base = stage.base
        for name in (*_names(base.image), *_names(base.platform)):
            if name not in known:
                sentence = f"FROM argument '{name}' is not declared{suggestion(name, known)}"
                yield Warning("UndefinedArgInFrom", sentence, base.span)
        platform = re.sub(r"[${}]", "", base.platform)
        if base.platform and platform == "TARGETPLATFORM":
            sentence = (
                f"Setting platform to predefined {base.platform} in FROM is redundant as this is the default behavior"
            )
            yield Warning("RedundantTargetPlatform", sentence, base.span)
        elif (
            base.platform
            and "$" not in base.platform
            # A stage whose name contains the platform uses it deliberately.
            and not any(part in base.name for part in base.platform.split("/")[:2])
        ):
            sentence = f'FROM --platform flag should not use constant value "{base.platform}"'
            yield Warning("FromPlatformFlagConstDisallowed", sentence, base.span)
        if "$" in base.image and _invalid(base.image, given, file.escape):
            sentence = f"Default value for ARG {base.image} results in empty or invalid base image name"
            yield Warning("InvalidDefaultArgInFrom", sentence, base.span)


def _invalid(image: str, given: Mapping[str, str], escape: str) -> bool:
    """Whether the image name is invalid with the defaults of the arguments."""
    try:
        text = expand(image, given, escape=escape).text
    except WharfError:
        return False
    return not text or text.startswith((":", "@", "/", "-")) or text.endswith((":", "@", "/"))


def _repeated(file: ins.Dockerfile) -> Iterator[Warning]:
    for stage in file.stages:
        last: dict[str, Span] = {}
        for item in stage.instructions:
            name = item.original.split(None, 1)[0].upper()
            if name not in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
                continue
            if name in last:
                yield Warning(
                    "MultipleInstructionsDisallowed",
                    f"Multiple {name} instructions should not be used in the same stage because only the last one "
                    "will be used",
                    last[name],
                )
            last[name] = item.span


def _workdirs(file: ins.Dockerfile) -> Iterator[Warning]:
    settled: set[str] = set()
    for stage in file.stages:
        absolute = stage.base.image.lower() in settled
        for item in stage.instructions:
            if not isinstance(item, ins.Workdir):
                continue
            if posixpath.isabs(item.path) or item.path.startswith("$"):
                absolute = True
            elif not absolute:
                sentence = (
                    f"Relative workdir {json.dumps(item.path)} can have unexpected results if the base image changes"
                )
                yield Warning("WorkdirRelativePath", sentence, item.span)
        if absolute and stage.base.name:
            settled.add(stage.base.name)


def _secrets(file: ins.Dockerfile) -> Iterator[Warning]:
    for item in (item for stage in file.stages for item in stage.instructions):
        if isinstance(item, ins.Arg | ins.Env):
            word = "ARG" if isinstance(item, ins.Arg) else "ENV"
            for name, _ in item.values:
                if _SECRET.search(name) and not _PUBLIC.search(name):
                    sentence = f'Do not use ARG or ENV instructions for sensitive data ({word} "{name}")'
                    yield Warning("SecretsUsedInArgOrEnv", sentence, item.span)


def _ports(file: ins.Dockerfile) -> Iterator[Warning]:
    for stage in file.stages:
        for item in stage.instructions:
            for port in item.ports if isinstance(item, ins.Expose) else ():
                if ":" in port and "$" not in port:
                    sentence = (
                        f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    )
                    yield Warning("ExposeInvalidFormat", sentence, item.span)
                protocol = port.partition("/")[2]
                if protocol != protocol.lower() and "$" not in protocol:
                    sentence = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                    yield Warning("ExposeProtoCasing", sentence, item.span)
