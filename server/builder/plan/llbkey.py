"""A key that BuildKit gives to a step, and what it is made of (:mod:`server.builder.solver.llbkeys` makes them)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A record's digests, the newest BuildKit's first, and what stands for each input."""

    digests: tuple[str, ...]
    inputs: tuple["Input", ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """``key``: by definition, with the selector of what is used, as different versions have it. ``content``: by the
    files themselves."""

    key: Key | None = None
    selectors: tuple[str, ...] = ("",)
    content: Key | None = None
