"""``docker top``: the lines of the host's ``ps`` for the container's processes."""

import re
from collections.abc import Collection

from engine.common import timeouts
from engine.common.errors import internal, invalid
from engine.common.system.run import Completed, run
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.stop import is_restarting, not_running

#: Another column must not have the title PID (``-o user=PID``): the lines are selected by this column.
_RENAMED = re.compile(r"\s+(\S*)=\s*(PID\S*)")
_BLANKS = re.compile(r"[\t\n\v\f\r ]+")


def check_arguments(arguments: str) -> None:
    """:raises WharfError: INTERNAL, as in dockerd: another column has the title PID."""
    for name, title in _RENAMED.findall(arguments):
        if name != "pid":
            raise internal(f'specifying "{name}={title}" is not allowed')


def parse(output: str, pids: Collection[int]) -> dict[str, list[str] | list[list[str]]]:
    """The titles, and the lines of ``pids`` and of the threads that ``ps`` lists after them.

    :raises WharfError: INTERNAL: there is no PID column, or a PID is not a number.
    """
    lines = output.split("\n")
    titles = _fields(lines[0])
    if "PID" not in titles:
        raise internal("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes: list[list[str]] = []
    selected = False
    for line in lines[1:]:
        fields = _fields(line)
        if not fields:
            continue
        word = fields[column] if column < len(fields) else ""
        if word != "-":
            if not word.isdecimal():
                raise internal(f"Unexpected pid '{word}': strconv.Atoi: parsing \"{word}\": invalid syntax")
            selected = int(word) in pids
        if selected:
            last = len(titles) - 1
            processes.append([*fields[:last], " ".join(fields[last:])])
    return {"Processes": processes, "Titles": titles}


def _fields(line: str) -> list[str]:
    return [field for field in _BLANKS.split(line) if field]


async def top(
    context: ContainerContext, container: Container, arguments: str
) -> dict[str, list[str] | list[list[str]]]:
    """The answer of ``GET /containers/{id}/top``. ``arguments``: for ``ps``.

    :raises WharfError: INVALID_ARGUMENT: ``arguments`` contains a NUL; CONFLICT: the container doesn't run; INTERNAL:
        ``ps`` failed, with its first line of stderr.
    """
    arguments = arguments or "-ef"
    if "\0" in arguments:
        raise invalid("ps_args contains a NUL character")
    check_arguments(arguments)
    if not container.state.running:
        raise not_running(container)
    if container.state.restarting:
        raise is_restarting(container)
    pids = await context.engine.tasks.pids(container.id)
    words = arguments.split(" ")
    done = await _ps([*words, "-q" + ",".join(map(str, pids))])
    if done.status != 0:
        # ps refuses -q with some options (f): list all processes.
        done = await _ps(words)
        if done.status != 0:
            line = done.stderr.decode(errors="replace").split("\n")[0]
            raise internal(f"ps: {line}" if line else f"ps: exit status {done.status}")
    answer = parse(done.stdout.decode(errors="replace"), frozenset(pids))
    context.publish(container, "top")
    return answer


async def _ps(arguments: list[str]) -> Completed:
    try:
        return await run(["ps", *arguments], deadline=timeouts.seconds("program.run"))
    except FileNotFoundError:
        raise internal('ps: exec: "ps": executable file not found in $PATH') from None
