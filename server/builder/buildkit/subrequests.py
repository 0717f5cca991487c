"""Queries about a Dockerfile that build nothing (BuildKit's subrequests): build checks, targets, outline."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.common.errors import WharfError, invalid, not_implemented
from server.builder.buildkit.outline import Outline, location
from server.builder.dockerfile import checks
from server.builder.dockerfile.errors import DockerfileError, Warning, excerpt
from server.builder.dockerfile.instructions import Dockerfile

DESCRIBE = "frontend.subrequests.describe"
LINT = "frontend.lint"
_VERSION = "1.0.0"


@dataclass(frozen=True, slots=True)
class Subrequest:
    """The subject of a query."""

    file: Dockerfile
    name: str
    text: bytes
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)


def answer(request: str, subrequest: Subrequest) -> Mapping[str, bytes]:
    """Return the metadata of the result. Raises NOT_IMPLEMENTED for an unknown subrequest."""
    if request == DESCRIBE:
        names = (LINT, *_HANDLERS, DESCRIBE)
        return _result([_description(key) for key in names], "\n".join(names) + "\n")
    handler = _HANDLERS.get(request)
    if handler is None:
        raise not_implemented(f"the front end's subrequest {request} is not supported")
    return handler(subrequest)


def _description(name: str) -> dict[str, object]:
    return {
        "name": name,
        "version": _VERSION,
        "type": "rpc",
        "description": "",
        "opts": None,
        "inputs": None,
        "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
        "refs": None,
    }


def _result(document: object, text: str, **more: str) -> dict[str, bytes]:
    data = json.dumps(document, indent=2).encode()
    extra = {f"result.{key}": value.encode() for key, value in more.items()}
    return {"result.json": data, "result.txt": text.encode(), "version": _VERSION.encode(), **extra}


def _source(name: str, text: bytes) -> dict[str, object]:
    return {"filename": name, "language": "Dockerfile", "data": base64.b64encode(text).decode()}


def _without_empty(document: Mapping[str, object]) -> dict[str, object]:
    """Drop empty fields, as Go's omitempty does."""
    return {key: value for key, value in document.items() if value not in ("", False, [], None)}


def lint_result(name: str, text: bytes, found: Sequence[Warning], error: WharfError | None) -> Mapping[str, bytes]:
    """Answer :data:`LINT`: the findings, and the error that a build would raise."""
    warnings = [
        {
            "ruleName": item.rule,
            "description": checks.RULES.get(item.rule, item.rule),
            "url": checks.url(item.rule),
            "detail": item.message,
            "location": location(item.span),
        }
        for item in found
    ]
    lines = text.decode("utf-8", "replace").split("\n")
    shown = [
        f"\nWARNING: {item.rule} - {checks.url(item.rule)}\n{item.message}\n{excerpt(name, lines, item.span)}\n"
        for item in sorted(found, key=lambda item: (item.span.first, item.rule))
    ]
    document: dict[str, object] = {"warnings": warnings or None, "sources": [_source(name, text)]}
    if error is not None:
        span = error.span if isinstance(error, DockerfileError) else None
        sentence = error.sentence if isinstance(error, DockerfileError) else error.message
        document["buildError"] = {"message": sentence, "location": {} if span is None else location(span)}
        shown.append(f"\nERROR: {sentence}\n{excerpt(name, lines, span) if span is not None else ''}\n")
    return _result(document, "".join(shown), statuscode="1" if found or error is not None else "0")


def _targets(subrequest: Subrequest) -> dict[str, bytes]:
    targets = []
    shown = ["TARGET\tDESCRIPTION"]
    for stage in subrequest.file.stages:
        base, default = stage.base, stage is subrequest.file.stages[-1]
        targets.append(
            _without_empty(
                {
                    "name": base.name,
                    "default": default,
                    "description": base.comment,
                    "base": base.image,
                    "platform": base.platform,
                    "location": location(base.span),
                }
            )
        )
        shown.append(f"{base.name or stage.index}{' (default)' if default else ''}\t{base.comment}")
    document = {"targets": targets, "sources": [base64.b64encode(subrequest.text).decode()]}
    return _result(document, "\n".join(shown) + "\n")


def _outline(subrequest: Subrequest) -> dict[str, bytes]:
    file, target = subrequest.file, subrequest.target.lower()
    names = [stage.base.name for stage in file.stages]
    if target and target not in names and not (target.isdigit() and int(target) < len(names)):
        raise invalid(f'target stage "{subrequest.target}" could not be found')
    number = len(names) - 1 if not target else int(target) if target.isdigit() else names.index(target)
    outline = Outline(file, subrequest.build_args)
    outline.stage(number)
    stage = file.stages[number]
    parts = {"args": outline.args, "secrets": outline.secrets, "ssh": outline.agents}
    document = _without_empty(
        {
            "name": stage.base.name,
            "description": stage.base.comment,
            **{key: [_without_empty(item) for item in found.values()] for key, found in parts.items()},
            "sources": [base64.b64encode(subrequest.text).decode()],
        }
    )
    shown = [f"TARGET:\t{stage.base.name or 'default'}", "BUILD ARG\tVALUE\tDESCRIPTION"]
    shown += [f"{item['name']}\t{item['value']}\t{item['description']}" for item in outline.args.values()]
    return _result(document, "\n".join(shown) + "\n")


_HANDLERS: Mapping[str, Callable[[Subrequest], dict[str, bytes]]] = {
    "frontend.outline": _outline,
    "frontend.targets": _targets,
}
