"""Which findings of build checks count: ``# check=skip=Rule,Rule;error=true``, or the same as a build argument."""

import re
from collections.abc import Sequence

from engine.build.dockerfile.errors import DockerfileError
from engine.build.dockerfile.instructions import Warning

DOCUMENTATION = "https://docs.docker.com/go/dockerfile/rule/"
ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"


EXPERIMENTAL = {"CopyIgnoredFile", "InvalidDefinitionDescription"}
"""Rules that count only where ``experimental=`` names them, or ``all``."""


def chosen(warnings: Sequence[Warning], directive: str, *, fail: bool = True) -> list[Warning]:
    """What is left of them. With ``fail``, raises :class:`DockerfileError` if findings are errors."""
    skipped: set[str] = set()
    trials: set[str] = set()
    everything = error = False
    for part in filter(None, directive.split(";")):
        key, _, value = part.strip().partition("=")
        if key == "skip":
            everything = everything or value.strip().lower() == "all"
            skipped.update(item.strip() for item in value.split(","))
        elif key == "error":
            error = value.strip().lower() in ("true", "1")
        elif key == "experimental":
            trials.update(item.strip() for item in value.split(","))
        else:
            raise DockerfileError(f'invalid check option "{key}"')
    if "all" not in trials and "ALL" not in trials:
        skipped |= EXPERIMENTAL - trials
    left = [] if everything else [item for item in warnings if item.rule not in skipped]
    if left and error and fail:
        rules = ", ".join(sorted({item.rule for item in left}))
        raise DockerfileError(f"lint violation found for rules: {rules}", left[0].span)
    return left


def url(rule: str) -> str:
    """Where a rule is described: ``FromAsCasing`` is at ``from-as-casing``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule)
    return f"{DOCUMENTATION}{words.lower()}/"
