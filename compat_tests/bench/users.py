"""Users of an engine with a policy, beside its administrator, and beside an engine without a policy."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

from compat_tests.bench.lifecycle import ok
from compat_tests.bench.measure import OURS, Row, at_most, clock_of, in_turn
from compat_tests.support.api import Api, Credentials
from compat_tests.support.engines import Engine, wharf
from compat_tests.support.users import User, lab

POLICY = """
default_role = "member"
published_images = ["docker.io/library/busybox:*"]

[roles.member]
"""
ADMINISTRATOR, NO_POLICY = "administrator", "no policy"
LISTS = (
    ("containers (`ps -a`)", "/containers/json?all=1"),
    ("images", "/images/json"),
    ("volumes", "/volumes"),
    ("networks", "/networks"),
)

_Options = Callable[[User], tuple[str, ...]]


def run(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command, by a user and by the administrator of the same engine."""
    if all(engine.kind != OURS for engine in engines):
        return
    with lab("bench-users", POLICY, ("alice",)) as made:
        engine = made.engine.resources
        root = User("root", Credentials(0, 0), engine.root / "cli", engine.socket)
        clients = {OURS: made["alice"], ADMINISTRATOR: root}
        for client in clients.values():
            client.run("mkdir", "data")
        cases: tuple[tuple[str, _Options], ...] = (
            ("`docker run --rm busybox true` as a user", lambda _: ()),
            ("… with a volume", lambda _: ("-v", "data:/data")),
            ("… with a bind", lambda client: ("-v", f"{client.home}/data:/data")),
        )
        for name, options in cases:
            row = Row(name, "ms", at_most(1.1), baseline=ADMINISTRATOR)

            def once(who: str, row: Row = row, options: _Options = options) -> None:
                client = clients[who]
                with clock_of(row, who):
                    client.docker("run", "--rm", *options(client), "busybox", "true")

            for client in clients.values():
                client.docker("run", "--rm", *options(client), "busybox", "true")
            in_turn(list(clients), 5 if quick else 61, once)
            yield row
        root.docker("volume", "rm", "data")


def lists(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Lists on a persistent connection, of an engine with 50 owners and of one without a policy, with as many objects:
    500 containers, images, volumes and networks."""
    if all(engine.kind != OURS for engine in engines):
        return
    owners, each = (5, 4) if quick else (50, 10)
    with ExitStack() as stack:
        # Each owner has a default bridge: more than the pool of a test's engine has subnets.
        pool = ("--default-address-pool", "base=10.127.0.0/16,size=28")
        made = stack.enter_context(lab("bench-owners", POLICY, [f"u{number}" for number in range(owners)], *pool))
        plain = stack.enter_context(wharf("bench-plain", *pool))
        plain.load_busybox()
        for user in made.users.values():
            for number in range(each):
                _create(user.api, number)
        for number in range(owners * each):
            _create(plain.api, number)
        for number in range(owners):
            # Beside the default bridges of the owners.
            assert plain.api.post("/networks/create", {"Name": f"bridge{number}"}).status == 201
            stack.callback(plain.api.delete, f"/networks/bridge{number}")
        for who, api in (("as a user", made["u3"].api), ("as the administrator", made.engine.api)):
            for what, path in LISTS:
                name = f"list of {owners * each} {what}, {owners} owners, {who}"
                row = Row(name, "ms", at_most(1.2), baseline=NO_POLICY)
                _measure(row, {OURS: api, NO_POLICY: plain.api}, path, times=5 if quick else 101)
                yield row


def _create(api: Api, number: int) -> None:
    """Create one object of each kind. A network that only stores a configuration has no bridge."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(f"file{number}"))
    query = {"fromSrc": "-", "repo": "many", "tag": str(number)}
    answers = (
        api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]}, name=f"many{number}"),
        api.post("/volumes/create", {"Name": f"many{number}"}),
        api.post("/networks/create", {"Name": f"many{number}", "ConfigOnly": True}),
        api.request("POST", "/images/create", query=query, body=layer.getvalue()),
    )
    for answer in answers:
        assert answer.status in (200, 201), answer.body


def _measure(row: Row, apis: dict[str, Api], path: str, *, times: int) -> None:
    with ExitStack() as stack:
        connections = {who: stack.enter_context(closing(api.connection())) for who, api in apis.items()}

        def once(who: str) -> None:
            # Without the checks of ``Api``, which take longer than the engine.
            with clock_of(row, who):
                connections[who].request("GET", path)
                answer = connections[who].getresponse()
                answer.read()
            assert answer.status == 200

        for who in apis:
            ok(apis[who], connections[who], "GET", path)
        in_turn(list(apis), times, once, seconds=20)
