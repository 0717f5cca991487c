"""Errors of steps: the process exited with a non-zero code, or could not be started."""

import json

from engine.common.errors import Kind, WharfError
from server.builder.dockerfile.errors import Span
from server.builder.plan.steps import Step


class StepFailed(WharfError):
    """A step's process exited with a non-zero code. The message is BuildKit's sentence; ``span`` locates the step."""

    def __init__(self, step: Step, command: str, code: int) -> None:
        shown = json.dumps(command, ensure_ascii=False)
        super().__init__(Kind.INVALID_ARGUMENT, f"process {shown} did not complete successfully: exit code: {code}")
        self.step, self.command, self.code = step, command, code

    @property
    def span(self) -> Span | None:
        """The lines of the step in the Dockerfile."""
        return self.step.span


class StepRefused(WharfError):
    """A step's process could not be started. ``refusal`` is the runtime's own sentence."""

    def __init__(self, command: str, error: WharfError) -> None:
        shown = json.dumps(command, ensure_ascii=False)
        super().__init__(
            error.kind, f"process {shown} did not complete successfully: {error.message}", reason=error.reason
        )
        self.refusal = error.message
