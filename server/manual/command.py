"""What a man page and a completion need to know of a program."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An option. ``value``: the word that stands for its value; "" if it has none. ``choices``: the values, if they
    are known; otherwise shells complete names of files. ``notes``: sentences for the man page only."""

    long: str = ""
    short: str = ""
    help: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    repeats: bool = False
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """As on the command line, the short one first."""
        short, long = (f"-{self.short}" if self.short else ""), (f"--{self.long}" if self.long else "")
        return tuple(name for name in (short, long) if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A positional argument. ``choices`` as in :class:`Flag`."""

    name: str
    help: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A further section of the man page: paragraphs, or terms with their explanation."""

    title: str
    text: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program, or one of its commands: then ``name`` is the last word only. ``summary``: one line. ``description``:
    paragraphs. ``sections``: what the man page of a program has behind its options."""

    name: str
    summary: str
    description: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    arguments: tuple[Argument, ...] = ()
    commands: tuple["Command", ...] = ()
    sections: tuple[Section, ...] = ()


def from_parser(parser: argparse.ArgumentParser, *, summary: str, sections: tuple[Section, ...] = ()) -> Command:
    """The program of an argparse parser, whose ``prog`` is its name; with all commands of its subparsers."""
    return _from_parser(parser, parser.prog, summary, sections)


def _from_parser(
    parser: argparse.ArgumentParser, name: str, summary: str, sections: tuple[Section, ...] = ()
) -> Command:
    flags: list[Flag] = []
    arguments: list[Argument] = []
    commands: list[Command] = []
    for action in parser._actions:
        # Subparsers have their help beside them, in pseudo-actions.
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            commands += [_from_parser(below, word, helps.get(word, "")) for word, below in action.choices.items()]
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            flags.append(_flag(action))
        else:
            arguments.append(
                Argument(name=_metavar(action), help=_help(action), choices=tuple(map(str, action.choices or ())))
            )
    paragraphs = tuple(part for part in (parser.description or "").split("\n\n") if part.strip() not in ("", summary))
    return Command(
        name=name,
        summary=summary,
        description=paragraphs,
        flags=tuple(flags),
        arguments=tuple(arguments),
        commands=tuple(commands),
        sections=sections,
    )


def _flag(action: argparse.Action) -> Flag:
    return Flag(
        long=next((word[2:] for word in action.option_strings if word.startswith("--")), ""),
        short=next((word[1:] for word in action.option_strings if not word.startswith("--")), ""),
        help=_help(action),
        value="" if action.nargs == 0 else _metavar(action),
        choices=tuple(map(str, action.choices or ())),
        repeats=isinstance(action, argparse._AppendAction),
    )


def _metavar(action: argparse.Action) -> str:
    named = action.metavar
    return named if isinstance(named, str) else " ".join(named) if named else action.dest


def _help(action: argparse.Action) -> str:
    """The help with its ``%(default)s`` and its like replaced."""
    return (action.help or "") % vars(action)
