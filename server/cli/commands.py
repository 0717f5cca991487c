"""What each command does: one request, and its answer as a table or as JSON."""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from server.cli import text
from server.cli.bars import show_timelines
from server.cli.client import Client, Failure, MissingEndpoint, host
from server.cli.tables import Column, Row, field, show

_API = "/wharf/v1"
# Parts that an engine may lack.
_GPUS, _JOBS = "GPUs allocator", "job sockets"


def _client(arguments: Namespace) -> Client:
    return Client(host(arguments.host))


def _print(arguments: Namespace, answer: Any, columns: Sequence[Column], rows: Iterable[Row] | None = None) -> int:
    """``rows``: those of the table, if they are not the answer's."""
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        show(columns, answer if rows is None else rows)
    return 0


@contextmanager
def _part(client: Client, missing: str) -> Iterator[None]:
    """Endpoints of a part that an engine may lack, although it has ``/wharf/v1``.

    :raises Failure: it lacks it, which ``missing`` says.
    """
    try:
        yield
    except MissingEndpoint:
        client.get(f"{_API}/openapi.json")  # raises for an engine without any of /wharf/v1
        raise Failure(f"this engine has no {missing}") from None


def _user(name: str) -> str:
    return name or "(administrators)"


CONTAINER = Column("CONTAINER", lambda row: row.get("ContainerName") or row.get("Container", "")[:12])

USERS = (
    Column("USER", lambda row: _user(row["User"])),
    Column("ROLE", lambda row: "administrator" if row["Administrator"] else row["Role"] or "(none)"),
    field("CONTAINERS", "Containers", right=True),
    field("RUNNING", "Running", right=True),
    field("VOLUMES", "Volumes", right=True),
    field("NETWORKS", "Networks", right=True),
    field("IMAGES", "Images", right=True),
    Column("LIMITS", lambda row: text.limits(row["Limits"])),
)


def users(arguments: Namespace) -> int:
    return _print(arguments, _client(arguments).get(f"{_API}/users"), USERS)


GPUS = (
    field("DEVICE", "Name"),
    Column("SHARED", lambda row: "yes" if row["Shared"] else "no"),
    Column("USER", lambda row: _user(row["User"]) if "User" in row else "(free)"),
    Column("SINCE", lambda row: text.time(row.get("Since", ""))),
    CONTAINER,
)


def _holders(gpu: Row) -> list[Row]:
    """Of a free GPU one without fields: each GPU has a row."""
    return gpu["Holders"] or [{}]


def gpus(arguments: Namespace) -> int:
    client = _client(arguments)
    with _part(client, _GPUS):
        answer = client.get(f"{_API}/gpus")
    rows = ({**gpu, **holder} for gpu in answer for holder in _holders(gpu))
    return _print(arguments, answer, GPUS, rows)


QUEUE = (
    field("PLACE", "Place", right=True),
    Column("USER", lambda row: _user(row["User"])),
    Column("GPUS", lambda row: ", ".join((*row["Gpus"], *map(_counted, (row["Counts"] or {}).items())))),
    Column("SINCE", lambda row: text.time(row["Since"])),
    CONTAINER,
    field("WAITS FOR", "Reason"),
)


def _counted(count: tuple[str, int]) -> str:
    kind, number = count
    return f"{kind}=all" if number < 0 else f"{number} of {kind}"


def queue(arguments: Namespace) -> int:
    client = _client(arguments)
    with _part(client, _GPUS):
        answer = client.get(f"{_API}/queue")
    return _print(arguments, answer, QUEUE)


USAGE = (
    field("DAY", "Day"),
    Column("USER", lambda row: _user(row["User"])),
    Column("CPU HOURS", lambda row: f"{row['CpuSeconds'] / 3600:.2f}", right=True),
    Column("MEMORY GiB HOURS", lambda row: f"{row['MemoryGibHours']:.2f}", right=True),
    Column("GPU HOURS", lambda row: f"{row['GpuHours']:.2f}", right=True),
    Column("DISK", lambda row: text.size(row["Disk"]), right=True),
    Column("IN", lambda row: text.size(row["BytesIn"]), right=True),
    Column("OUT", lambda row: text.size(row["BytesOut"]), right=True),
)


def usage(arguments: Namespace) -> int:
    client = _client(arguments)
    with _part(client, "accounting"):
        chosen = "true" if arguments.containers else None
        answer = client.get(f"{_API}/usage", days=arguments.days, containers=chosen)
    return _print(arguments, answer, (*USAGE, CONTAINER) if arguments.containers else USAGE)


SOCKETS = (
    field("ID", "Id"),
    Column("USER", lambda row: _user(row["User"])),
    Column("LABELS", lambda row: text.labels(row["Labels"])),
    Column("LIMITS", lambda row: text.limits({name.lower(): value for name, value in row["Limits"].items()})),
    Column("EXPIRES", lambda row: text.time(row["Expires"]) or "never"),
    Column("HOLDER", lambda row: row["Holder"] or ""),
    field("PATH", "Path"),
)


def sockets(arguments: Namespace) -> int:
    client = _client(arguments)
    with _part(client, _JOBS):
        answer = client.get(f"{_API}/sockets")
    return _print(arguments, answer, SOCKETS)


def socket_create(arguments: Namespace) -> int:
    """Prints the path of the socket."""
    limits = {name: getattr(arguments, name) for name in ("cpus", "memory", "pids", "containers", "disk", "gpus")}
    body = {
        "Labels": dict(arguments.label),
        "TTL": arguments.ttl,
        "Holder": arguments.holder,
        "Limits": {name.capitalize(): value for name, value in limits.items() if value is not None},
    }
    client = _client(arguments)
    with _part(client, _JOBS):
        answer = client.post(f"{_API}/sockets", body)
    print(json.dumps(answer, indent=2) if arguments.json else text.printable(answer["Path"]))
    return 0


def socket_rm(arguments: Namespace) -> int:
    """Removes job sockets by their ids or paths; prints each as it was named."""
    client = _client(arguments)
    with _part(client, _JOBS):
        by_path = {row["Path"]: row["Id"] for row in client.get(f"{_API}/sockets")}
    for name in arguments.socket:
        id = by_path.get(name.removeprefix("unix://"), name)
        if "/" in id:
            raise Failure(f"no job socket has the path {id}")
        client.delete(f"{_API}/sockets/{id}")
        print(name)
    return 0


def timeline(arguments: Namespace) -> int:
    """Of a container, or of the last pulls and builds."""
    client = _client(arguments)
    container = arguments.container
    path = f"/containers/{quote(container, safe='')}/timeline" if container else "/timelines"
    with _part(client, "timelines"):
        answer = client.get(f"{_API}{path}")
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        show_timelines(answer)
    return 0


def ui(arguments: Namespace) -> int:
    """Prints a link to the page."""
    client = _client(arguments)
    with _part(client, "page"):
        answer = client.post(f"{_API}/ui/login", {})
    if arguments.json:
        print(json.dumps(answer, indent=2))
    elif "Url" in answer:
        print(answer["Url"])
    else:
        print(
            f"The page is served on the unix socket {answer['Socket']}, for a proxy or ssh -L 9780:{answer['Socket']}."
        )
        print(f"http://localhost:9780{answer['Path']}")
    return 0


def policy_show(arguments: Namespace) -> int:
    answer = _client(arguments).get(f"{_API}/policy")
    rights, limits = answer["Rights"], answer["Limits"]
    rows = [
        ("user", _user(answer["User"])),
        ("role", "administrator" if answer["Administrator"] else answer["Role"]),
        ("scope of the socket", answer["Scope"] or "(none)"),
    ]
    if rights is None:
        rows.append(("rights", "all"))
    else:
        rows.append(("rights", ", ".join(_right(name, value) for name, value in rights.items() if value) or "(none)"))
        rows.append(("refused", ", ".join(name for name, value in rights.items() if value is False) or "(nothing)"))
    rows += [(name, text.limit(name, value)) for name, value in (limits or {}).items()] or [("limits", "(none)")]
    columns = (Column("WHAT", lambda row: row["what"]), Column("VALUE", lambda row: row["value"]))
    return _print(arguments, answer, columns, ({"what": what, "value": value} for what, value in rows))


def _right(name: str, value: object) -> str:
    return f"{name} {' '.join(map(str, value))}" if isinstance(value, list) else name


def policy_check(arguments: Namespace) -> int:
    # Here: it takes pydantic a quarter of a second to load.
    from server.cli.check import check

    return check(arguments.file, as_json=arguments.json)


def audit(arguments: Namespace) -> int:
    lines = _client(arguments).lines(
        f"{_API}/audit",
        endless=arguments.follow,
        n=arguments.lines,
        user=arguments.user,
        follow="true" if arguments.follow else None,
    )
    for line in lines:
        print(line if arguments.json else _audit_line(json.loads(line)), flush=arguments.follow)
    if arguments.follow:
        raise Failure("the engine has ended the answer: its audit log was closed, or this client was too slow")
    return 0


def _audit_line(row: Row) -> str:
    query = "&".join(f"{name}={value}" for name, value in (row["query"] or {}).items())
    target = f"{row['path']}?{query}" if query else row["path"]
    who = row["user"] or f"uid {row['uid']}"
    shown = f"{text.time(row['time'])} {who} {row['status']} {row['method']} {target} {row['seconds']} s"
    return text.printable(f"{shown}: {row['error']}" if row.get("error") else shown)
