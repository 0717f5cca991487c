"""Questions about a Dockerfile that build nothing (BuildKit's subrequests): its checks, its targets, its arguments."""

import base64
import json
from collections.abc import Callable, Mapping

from engine.build.dockerfile import checks
from engine.build.dockerfile.instructions import Arg, Dockerfile
from engine.errors import invalid, not_implemented

DESCRIBE = "frontend.subrequests.describe"
_VERSION = "1.0.0"


def answer(request: str, file: Dockerfile, *, name: str, text: bytes, target: str) -> Mapping[str, bytes]:
    """The metadata of the result. Raises NOT_IMPLEMENTED for a question that isn't known."""
    if request == DESCRIBE:
        names = (*_QUESTIONS, DESCRIBE)
        return _result([_described(key) for key in names], "\n".join(names) + "\n")
    question = _QUESTIONS.get(request)
    if question is None:
        raise not_implemented(f"the front end's subrequest {request} is not supported")
    return question(file, name, text, target)


def _described(name: str) -> dict[str, object]:
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


def _location(first: int, last: int) -> dict[str, object]:
    return {"sourceIndex": 0, "ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _lint(file: Dockerfile, name: str, text: bytes, target: str) -> dict[str, bytes]:
    warnings = checks.chosen(file.warnings, file.directives.get("check", ""), fail=False)
    found = [
        {
            "ruleName": item.rule,
            "description": item.rule,
            "detail": item.message,
            "location": _location(item.span.first, item.span.last),
        }
        for item in warnings
    ]
    lines = text.decode("utf-8", "replace").splitlines()
    shown = []
    for item in warnings:
        excerpt = lines[item.span.first - 1 : item.span.last]
        shown.append(f"WARNING: {item.rule}\n{item.message}\n{name}:{item.span.first}\n" + "\n".join(excerpt) + "\n")
    document = {"warnings": found, "sources": [_source(name, text)] if found else []}
    return _result(document, "\n".join(shown), statuscode="1" if found else "0")


def _targets(file: Dockerfile, name: str, text: bytes, target: str) -> dict[str, bytes]:
    targets = []
    shown = ["TARGET\tDESCRIPTION"]
    for number, stage in enumerate(file.stages):
        default = number == len(file.stages) - 1
        targets.append(
            {
                "name": stage.base.name,
                "default": default,
                "description": stage.base.comment,
                "base": stage.base.image,
                "platform": stage.base.platform,
                "location": _location(stage.base.span.first, stage.base.span.last),
            }
        )
        label = f"{stage.base.name or stage.index}{' (default)' if default else ''}"
        shown.append(f"{label}\t{stage.base.comment}")
    document = {"targets": targets, "sources": [base64.b64encode(text).decode()]}
    return _result(document, "\n".join(shown) + "\n")


def _outline(file: Dockerfile, name: str, text: bytes, target: str) -> dict[str, bytes]:
    names = [stage.base.name for stage in file.stages]
    if target and target.lower() not in names and not (target.isdigit() and int(target) < len(names)):
        raise invalid(f'target stage "{target}" could not be found')
    number = len(names) - 1 if not target else int(target) if target.isdigit() else names.index(target.lower())
    stage = file.stages[number]
    arguments = [*file.arguments, *(item for item in stage.instructions if isinstance(item, Arg))]
    args = [
        {
            "name": key,
            "description": item.comments.get(key, ""),
            "value": value or "",
            "location": _location(item.span.first, item.span.last),
        }
        for item in arguments
        for key, value in item.values
    ]
    document = {
        "name": stage.base.name,
        "description": stage.base.comment,
        "args": args,
        "sources": [base64.b64encode(text).decode()],
    }
    shown = [f"TARGET:\t{stage.base.name or 'default'}", "BUILD ARG\tVALUE\tDESCRIPTION"]
    shown += [f"{item['name']}\t{item['value']}\t{item['description']}" for item in args]
    return _result(document, "\n".join(shown) + "\n")


_QUESTIONS: Mapping[str, Callable[[Dockerfile, str, bytes, str], dict[str, bytes]]] = {
    "frontend.lint": _lint,
    "frontend.outline": _outline,
    "frontend.targets": _targets,
}
