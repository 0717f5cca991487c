"""Completions for bash, zsh and fish. Options without known values complete names of files, as the shells do."""

import re
import shlex
from collections.abc import Iterator

from server.manual.command import Command, Flag


def bash(command: Command) -> str:
    """A function that finds the command before the cursor and offers its words."""
    function = _identifier(command.name)
    paths = [path for path, _ in _walk(command) if path != command.name]
    steps = [
        "  for ((index = 1; index < COMP_CWORD; index++)); do",
        "    word=${COMP_WORDS[index]}",
        "    case $path/$word in",
        f"      {_patterns(paths)}) path=$path/$word ;;",
        "    esac",
        "  done",
    ]
    values: list[str] = []
    words: list[str] = []
    for path, each in _walk(command):
        for flag in each.flags:
            if flag.value:
                choices = f" words={shlex.quote(' '.join(flag.choices))}" if flag.choices else ""
                patterns = _patterns([f"{path}/{name}" for name in flag.names])
                values.append(f"    {patterns}){choices or ' return'} ;;")
        offered = [name for flag in each.flags for name in flag.names if name.startswith("--")]
        offered += [below.name for below in each.commands]
        offered += [choice for argument in each.arguments for choice in argument.choices]
        words.append(f"      {_patterns([path])}) words={shlex.quote(' '.join(offered))} ;;")
    lines = [
        f"# bash completion of {command.name}; generated",
        f"{function}() {{",
        f'  local current=$2 previous=$3 path={command.name} words=""' + (" word index" if paths else ""),
        "  COMPREPLY=()",
        "  # bash has split --option=value at the equals sign.",
        '  if [ "$current" = "=" ]; then current=""; fi',
        '  if [ "$previous" = "=" ]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi',
        *(steps if paths else ()),
        "  case $path/$previous in",
        *values,
        "  esac",
        '  if [ -z "$words" ]; then',
        "    case $path in",
        *words,
        "    esac",
        "  fi",
        '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
        "}",
        f"complete -o bashdefault -o default -F {function} {command.name}",
    ]
    return "\n".join(lines) + "\n"


def zsh(command: Command) -> str:
    """A function for each command."""
    lines = [f"#compdef {command.name}", "# zsh completion; generated"]
    for path, each in _walk(command):
        lines += [f"{_identifier(path)}() {{", "  local context state line", "  typeset -A opt_args"]
        specs = [_zsh_flag(flag) for flag in each.flags]
        if each.commands:
            commands = " ".join(f"{_zsh(below.name)}\\:{_zsh_quoted(below.summary)}" for below in each.commands)
            specs += [_single(f"1:command:(({commands}))"), "'*::argument:->rest'"]
        for argument in each.arguments:
            choices = f"({' '.join(argument.choices)})" if argument.choices else "_files"
            specs.append(_single(f"*:{_zsh(argument.name)}:{choices}"))
        lines.append("  _arguments -C -S \\\n    " + " \\\n    ".join(specs))
        if each.commands:
            lines.append('  [ "$state" = rest ] || return')
            lines.append("  case $words[1] in")
            lines += [f"    {below.name}) {_identifier(f'{path}/{below.name}')} ;;" for below in each.commands]
            lines.append("  esac")
        lines.append("}")
    # The file is the body of the function that zsh loads, or is sourced.
    own = _identifier(command.name)
    lines.append(f'if [ "$funcstack[1]" = {own} ]; then {own} "$@"; else compdef {own} {command.name}; fi')
    return "\n".join(lines) + "\n"


def fish(command: Command) -> str:
    """One line for each word, with the condition under which it is offered."""
    lines = [f"# fish completion of {command.name}; generated"]
    for path, each in _walk(command):
        words = path.split("/")[1:]
        conditions = [f"__fish_seen_subcommand_from {word}" for word in words]
        if each.commands:
            conditions.append(f"not __fish_seen_subcommand_from {' '.join(below.name for below in each.commands)}")
        when = f" -n {shlex.quote('; and '.join(conditions))}" if conditions else ""
        for flag in each.flags:
            short = f" -s {flag.short}" if flag.short else ""
            long = f" -l {flag.long}" if flag.long else ""
            choices = f" -x -a {shlex.quote(' '.join(flag.choices))}" if flag.choices else " -r" if flag.value else ""
            lines.append(f"complete -c {command.name}{when}{short}{long}{choices} -d {_fish(flag.help)}")
        lines += [
            f"complete -c {command.name}{when} -f -a {below.name} -d {_fish(below.summary)}" for below in each.commands
        ]
        for argument in each.arguments:
            if argument.choices:
                offered = shlex.quote(" ".join(argument.choices))
                lines.append(f"complete -c {command.name}{when} -f -a {offered} -d {_fish(argument.help)}")
    return "\n".join(lines) + "\n"


def _walk(command: Command, above: str = "") -> Iterator[tuple[str, Command]]:
    """The program and all its commands, each with its path: ``wharf/policy/check``."""
    path = f"{above}/{command.name}" if above else command.name
    yield path, command
    for below in command.commands:
        yield from _walk(below, path)


def _identifier(path: str) -> str:
    return "_" + re.sub(r"\W", "_", path)


def _patterns(texts: list[str]) -> str:
    """An alternative of a case statement."""
    return " | ".join(map(shlex.quote, texts))


def _zsh_flag(flag: Flag) -> str:
    """The specification of _arguments: the options that it excludes, its names, its help, its value."""
    value = ""
    if flag.value:
        value = f":{_zsh(flag.value)}:" + (f"({' '.join(flag.choices)})" if flag.choices else "_files")
    excluded = "*" if flag.repeats else f"({' '.join(flag.names)})"
    specs = []
    for name in flag.names:
        # How the value is joined: --option=value or --option value, -xvalue or -x value.
        joined = ("=" if name.startswith("--") else "+") if flag.value else ""
        specs.append(_single(f"{excluded}{name}{joined}[{_zsh(flag.help)}]{value}"))
    return " ".join(specs)


def _zsh(text: str) -> str:
    """Text without a meaning in a specification of _arguments."""
    return re.sub(r"([\\\[\]:])", r"\\\1", text)


def _zsh_quoted(text: str) -> str:
    """A word in a list of values with explanations."""
    return '"' + re.sub(r'([\\"`$:])', r"\\\1", text) + '"'


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
