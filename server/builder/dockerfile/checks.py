"""Configuration of build checks: ``# check=skip=Rule,Rule;error=true``, or the build argument of the same syntax."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.builder.dockerfile.errors import DockerfileError, Warning

DOCUMENTATION = "https://docs.docker.com/go/dockerfile/rule/"
ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"


EXPERIMENTAL = {"CopyIgnoredFile", "InvalidDefinitionDescription"}
"""Rules that are enabled only by ``experimental=`` with their names or ``all``."""

RULES: Mapping[str, str] = {
    "ConsistentInstructionCasing": "All commands within the Dockerfile should use the same casing "
    "(either upper or lower)",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "DuplicateStageName": "Stage names should be unique",
    "ExposeInvalidFormat": "IP address and host-port mapping should not be used in EXPOSE instruction. "
    "This will become an error in a future release",
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "InvalidDefinitionDescription": "Comment for build stage or argument should follow the format: "
    "`# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or "
    "comment between the instruction and the comment.",
    "JSONArgsRecommended": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to "
    "OS signals",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "MaintainerDeprecated": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "MultipleInstructionsDisallowed": "Multiple instructions of the same type should not be used in the same stage",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "RedundantTargetPlatform": "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the "
    "default behavior",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "StageNameCasing": "Stage names should be lowercase",
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "UndefinedVar": "Variables should be defined before their use",
    "WorkdirRelativePath": "Relative workdir without an absolute workdir declared within the build can have "
    "unexpected results if the base image changes",
}
"""The rules and their descriptions."""

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


@dataclass(slots=True)
class Config:
    """Which findings to report. The name ``all`` stands for every rule."""

    skipped: set[str] = field(default_factory=set)
    trials: set[str] = field(default_factory=set)
    error: bool = False

    def select(self, warnings: Sequence[Warning]) -> list[Warning]:
        """Return the findings to report."""
        out = self.skipped if "all" in self.trials else self.skipped | (EXPERIMENTAL - self.trials)
        return [] if "all" in self.skipped else [item for item in warnings if item.rule not in out]

    def error_for(self, warnings: Sequence[Warning]) -> DockerfileError | None:
        """Return the error for these findings, if findings are errors."""
        if not self.error or not warnings:
            return None
        rules = ", ".join(dict.fromkeys(item.rule for item in warnings))
        return DockerfileError(f"lint violation found for rules: {rules}")


def config(directive: str, override: str = "") -> Config:
    """Parse the directive ``# check=``, or the client's option, which replaces it. Raises :class:`DockerfileError`."""
    found = Config()
    what = f"build-arg:{ARGUMENT}" if override else "check options"
    for part in filter(None, (override or directive).split(";")):
        key, equals, value = part.strip().partition("=")
        words = {"all" if word.strip().lower() == "all" else word.strip() for word in value.split(",")}
        if key == "skip" and equals:
            found.skipped |= words
        elif key == "experimental" and equals:
            found.trials |= words
        elif key == "error" and equals:
            if value not in _TRUE + _FALSE:
                reason = f'strconv.ParseBool: parsing "{value}": invalid syntax'
                raise DockerfileError(f'failed to parse {what}: failed to parse check option "{part}": {reason}')
            found.error = value in _TRUE
        else:
            raise DockerfileError(f'failed to parse {what}: invalid check option "{key}"')
    return found


def url(rule: str) -> str:
    """Return the documentation URL of a rule: ``FromAsCasing`` is at ``from-as-casing``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule)
    return f"{DOCUMENTATION}{words.lower()}/"
