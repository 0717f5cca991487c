"""BuildKit's cache key of a step, and its inputs (:mod:`server.builder.solver.llbkeys` computes them)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """The digests of a record, as the newest BuildKit has it first, and its inputs."""

    digests: tuple[str, ...]
    inputs: tuple["Input", ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """``key``: definition-based, with the selector of the files used, one per BuildKit version. ``content``: by the
    files themselves."""

    key: Key | None = None
    selectors: tuple[str, ...] = ("",)
    content: Key | None = None
