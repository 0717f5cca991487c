"""Parses a command line as dockerd does: ``--flag value``, ``--flag=value``, ``-D``, ``-H x``, ``-Hx``."""

from collections.abc import Sequence

from server.config.option import Kind, Option
from server.config.options import BY_FLAG, BY_SHORT, OPTIONS
from server.config.types import ConfigError

Given = dict[str, list[str]]


def parse(arguments: Sequence[str]) -> Given:
    """Flag → its texts, in order. A boolean without a value is "true".

    :raises ConfigError: an unknown flag, a missing value, or a positional argument.
    """
    given: Given = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = BY_FLAG.get(name)
            if option is None:
                raise ConfigError(f"unknown flag: --{name}\nSee 'wharfd --help'.")
            given.setdefault(name, []).append(value if equals else _value(option, f"--{name}", rest))
        elif word.startswith("-") and len(word) > 1:
            _short(word[1:], rest, given)
        else:
            rest.insert(0, word)
            break
    if rest:
        raise ConfigError(f'"wharfd" accepts no arguments, but was given "{rest[0]}"')
    return given


def _value(option: Option, shown: str, rest: list[str]) -> str:
    if option.kind is Kind.BOOL:
        return "true"
    if not rest:
        raise ConfigError(f"flag needs an argument: {shown}")
    return rest.pop(0)


def _short(letters: str, rest: list[str], given: Given) -> None:
    """A word of one-letter flags; the first one with a value takes the rest of the word."""
    whole = letters
    while letters:
        option = BY_SHORT.get(letters[0])
        if option is None:
            raise ConfigError(f"unknown shorthand flag: '{letters[0]}' in -{whole}\nSee 'wharfd --help'.")
        tail = letters[1:]
        if option.kind is Kind.BOOL and not tail.startswith("="):
            given.setdefault(option.flag, []).append("true")
            letters = tail
            continue
        value = tail.removeprefix("=") if tail else _value(option, f"'{letters[0]}' in -{whole}", rest)
        given.setdefault(option.flag, []).append(value)
        return


def usage() -> str:
    """The text of ``--help``."""
    lines = ["Usage:  wharfd [OPTIONS]", "", "A Docker Engine in Python.", "", "Options:"]
    for option in OPTIONS:
        if option.only_file or option.refused:
            continue
        short = f"-{option.short}, " if option.short else "    "
        kind = "" if option.kind is Kind.BOOL else f" {option.kind.value}"
        lines.append(f"  {short}--{option.flag + kind:<36} {option.help}")
    return "\n".join(lines)
