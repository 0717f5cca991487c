"""The arguments of ``wharf``."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from server import units
from server.cli import commands
from server.cli.client import DEFAULT_HOST

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

SUMMARY = "timelines of a Wharf engine; its users, shares and audit log if it has a policy"
_DESCRIPTION = f"""Shows why an operation of a Wharf engine was slow; and who uses an engine with a policy,
and what belongs to whom.

A user sees the own rights, limits and objects, an administrator those of all. The engine's socket is that of -H, of the
environment variables WHARF_HOST or DOCKER_HOST, or {DEFAULT_HOST}."""


def make_parser() -> argparse.ArgumentParser:
    """The parser. Its result has ``run``, which gets the result and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="wharf", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_common(parser, host="", json=False)
    found = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(found, "users", commands.users, "List users with their roles, objects and limits")
    _command(found, "gpus", commands.gpus, "List GPUs and who has them")
    _command(found, "queue", commands.queue, "List the containers that wait for GPUs")
    usage = _command(found, "usage", commands.usage, "List what each user has used, by day")
    usage.add_argument("--days", type=_number, default=7, metavar="N", help="How many days, by default %(default)s")
    usage.add_argument("--containers", action="store_true", help="A row for each container")
    _command(found, "sockets", commands.sockets, "List job sockets")
    _add_socket(_group(found, "socket", "Create and remove job sockets"))
    _add_policy(_group(found, "policy", "Show the own rights; check a policy file"))
    _add_audit(found)
    timeline = _command(found, "timeline", commands.timeline, "Show what took how long in an operation, as a bar chart")
    timeline.description = (
        "Shows the phases of a container's last create, start and exit; without a container, those of the last pulls "
        "and builds. An engine that was restarted has none of the operations before."
    )
    timeline.add_argument("container", nargs="?", default="", metavar="CONTAINER", help="A name or an id")
    ui = _command(found, "ui", commands.ui, "Print a link to the page")
    ui.description = "Prints a link to the engine's page (wharfd --ui). It is for one login, within 60 seconds."
    return parser


def _add_socket(found: "Commands") -> None:
    create = _command(found, "create", commands.socket_create, "Create a job socket and print its path")
    create.description = (
        "Creates a socket whose objects exist only for its clients. They are removed with the socket: by `wharf socket "
        "rm`, when its time to live ends, or when the process that holds it ends."
    )
    create.add_argument(
        "--label", type=_label, action="append", default=[], metavar="KEY=VALUE", help="A label, repeatable"
    )
    create.add_argument("--ttl", type=_duration, default=0, metavar="DURATION", help="Time to live, such as 30m or 2h")
    create.add_argument("--holder", type=_number, default=0, metavar="PID", help="The process that holds the socket")
    create.add_argument("--cpus", type=_cpus, metavar="N", help="CPUs of all of its containers together")
    create.add_argument("--memory", type=_size, metavar="SIZE", help="Memory of all of them, such as 8g")
    create.add_argument("--pids", type=_number, metavar="N", help="Processes and threads of all of them")
    create.add_argument("--containers", type=_number, metavar="N", help="The number of containers")
    create.add_argument("--disk", type=_size, metavar="SIZE", help="Layers, volumes and own images, such as 20g")
    create.add_argument("--gpus", type=_number, metavar="N", help="GPUs that they have at a time")
    rm = _command(found, "rm", commands.socket_rm, "Remove job sockets with all that was created through them")
    rm.add_argument("socket", nargs="+", metavar="SOCKET", help="An id or a path of `wharf sockets`")


def _add_policy(found: "Commands") -> None:
    check = _command(found, "check", commands.policy_check, "Check a policy file, without an engine")
    check.description = (
        "Names each mistake of a policy file. The endpoints of its scopes are checked by the engine, when it starts or "
        "reloads the policy."
    )
    check.add_argument("file", type=Path, metavar="FILE", help="Such as /etc/wharf/policy.toml")
    _command(found, "show", commands.policy_show, "Show the own role with its rights and limits")


def _add_audit(found: "Commands") -> None:
    audit = _command(found, "audit", commands.audit, "Show the audit log; for administrators")
    audit.add_argument(
        "-n", "--lines", type=_number, default=50, metavar="N", help="How many lines, by default %(default)s"
    )
    audit.add_argument("-f", "--follow", action="store_true", help="Then show each new line")
    audit.add_argument("--user", default="", metavar="NAME", help="Only what this user did")


def _group(found: "Commands", name: str, about: str) -> "Commands":
    parser = found.add_parser(name, help=about, description=about)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _command(
    found: "Commands", name: str, run: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    parser = found.add_parser(name, help=about, description=about)
    # Without a default: it would replace what is before the command.
    _add_common(parser, host=argparse.SUPPRESS, json=argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, host: str, json: bool | str) -> None:
    parser.add_argument("-H", "--host", default=host, metavar="unix://PATH", help="The engine's socket")
    parser.add_argument("--json", action="store_true", default=json, help="Print JSON, with all fields")


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    return _parsed(units.parse_size, text)


def _duration(text: str) -> int:
    return _parsed(units.parse_duration, text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"not a number: {text}")
    return int(text)


def _cpus(text: str) -> float:
    found = _parsed(float, text)
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of CPUs: {text}")
    return found


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"not a label: {text}")
    return name, value
