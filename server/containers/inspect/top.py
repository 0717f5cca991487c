"""``docker top``: the host's ``ps``, asked for the container's processes and cut down to them."""

import re
from collections.abc import Collection

from engine.common import timeouts
from engine.common.errors import internal, invalid
from engine.common.system.run import Completed, run
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.stop import is_restarting, not_running

#: A column may not be renamed to PID (``-o user=PID``): the column is what tells whose a line is.
_RENAMED = re.compile(r"\s+(\S*)=\s*(PID\S*)")
_BLANKS = re.compile(r"[\t\n\v\f\r ]+")


def check_arguments(arguments: str) -> None:
    """
    :raises WharfError: INTERNAL (dockerd's 500) for a renamed column.
    """
    for name, title in _RENAMED.findall(arguments):
        if name != "pid":
            raise internal(f'specifying "{name}={title}" is not allowed')


def parse(output: str, pids: Collection[int]) -> dict[str, list[str] | list[list[str]]]:
    """Keeps the lines of ``pids`` (and of threads listed below them).

    :raises WharfError: INTERNAL: no PID column.
    """
    lines = output.split("\n")
    titles = _fields(lines[0])
    if "PID" not in titles:
        raise internal("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes: list[list[str]] = []
    mine = False
    for line in lines[1:]:
        fields = _fields(line)
        if not fields:
            continue
        word = fields[column] if column < len(fields) else ""
        if word != "-":
            if not word.isdecimal():
                raise internal(f"Unexpected pid '{word}': strconv.Atoi: parsing \"{word}\": invalid syntax")
            mine = int(word) in pids
        if mine:
            last = len(titles) - 1
            processes.append([*fields[:last], " ".join(fields[last:])])
    return {"Processes": processes, "Titles": titles}


def _fields(line: str) -> list[str]:
    return [field for field in _BLANKS.split(line) if field]


async def top(
    context: ContainerContext, container: Container, arguments: str
) -> dict[str, list[str] | list[list[str]]]:
    """``GET /containers/{id}/top``.

    :raises WharfError: INVALID_ARGUMENT for a NUL; CONFLICT unless it runs; INTERNAL with what ps says.
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
        # Some options (f) don't go together with -q.
        done = await _ps(words)
        if done.status != 0:
            complaint = done.stderr.decode(errors="replace").split("\n")[0]
            raise internal(f"ps: {complaint}" if complaint else f"ps: exit status {done.status}")
    answer = parse(done.stdout.decode(errors="replace"), frozenset(pids))
    context.publish(container, "top")
    return answer


async def _ps(arguments: list[str]) -> Completed:
    try:
        return await run(["ps", *arguments], deadline=timeouts.seconds("program.run"))
    except FileNotFoundError:
        raise internal('ps: exec: "ps": executable file not found in $PATH') from None
