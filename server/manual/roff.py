"""Man pages, in the macros of man(7)."""

import textwrap
from collections.abc import Iterator, Sequence

from server.manual.command import Argument, Command, Flag


def man_page(command: Command, *, section: int, version: str) -> str:
    """The page of a program, with all its commands. ``section``: 1 for everybody's programs, 8 for administrators'."""
    lines = [
        f'.TH {_escaped(command.name.upper())} {section} "" "Wharf {_escaped(version)}" "Wharf"',
        ".SH NAME",
        f"{_escaped(command.name)} \\- {_escaped(command.summary)}",
        ".SH SYNOPSIS",
        *_synopsis(command, command.name),
    ]
    if command.description:
        lines += [".SH DESCRIPTION", *_paragraphs(command.description)]
    if command.arguments:
        lines += [".SH ARGUMENTS", *_arguments(command.arguments)]
    if command.flags:
        lines += [".SH OPTIONS", *_flags(command.flags)]
    if command.commands:
        lines.append(".SH COMMANDS")
        for below in command.commands:
            lines += _command(below, f"{command.name} {below.name}")
    for more in command.sections:
        lines += [f".SH {_escaped(more.title)}", *_paragraphs(more.text)]
        for term, text in more.terms:
            lines += [".TP", f"\\fB{_escaped(term)}\\fR", *_filled(text)]
    return "\n".join(lines) + "\n"


def _command(command: Command, path: str) -> Iterator[str]:
    """The part of one command, and those of the commands below it. A command of commands alone has no synopsis."""
    if not command.commands or command.flags or command.arguments:
        yield f".SS {_escaped(path)}"
        yield from _synopsis(command, path)
        yield from _paragraphs(tuple(filter(None, (command.summary, *command.description))))
        yield from _arguments(command.arguments)
        yield from _flags(command.flags)
    for below in command.commands:
        yield from _command(below, f"{path} {below.name}")


def _synopsis(command: Command, path: str) -> Iterator[str]:
    yield ".PP"
    parts = [f"\\fB{_escaped(path)}\\fR"]
    if command.flags:
        parts.append("[\\fIoptions\\fR]")
    if command.commands:
        parts.append("\\fIcommand\\fR")
    parts += [f"\\fI{_escaped(argument.name)}\\fR" for argument in command.arguments]
    yield " ".join(parts)


def _arguments(arguments: Sequence[Argument]) -> Iterator[str]:
    for argument in arguments:
        yield from (".TP", f"\\fI{_escaped(argument.name)}\\fR", *_filled(argument.help))


def _flags(flags: Sequence[Flag]) -> Iterator[str]:
    for flag in flags:
        value = f" \\fI{_escaped(flag.value)}\\fR" if flag.value else ""
        names = ", ".join(f"\\fB{_escaped(name)}\\fR" for name in flag.names)
        text = " ".join([f"{flag.help.rstrip('.')}.", *(["May be repeated."] if flag.repeats else []), *flag.notes])
        yield from (".TP", names + value, *_filled(text))


def _paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from (".PP", *_filled(text))


def _filled(text: str) -> list[str]:
    return [_escaped(line) for line in textwrap.wrap(text, 70, break_long_words=False, break_on_hyphens=False)]


def _escaped(text: str) -> str:
    """Text as roff prints it: a dash that can be copied, and no request in the first column."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
