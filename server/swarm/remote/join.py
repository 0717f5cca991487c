"""A node joins a swarm. Sentences are SwarmKit's (ca/certificates.go, ca/config.go) and dockerd's."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from server.swarm.remote import wire
from server.swarm.remote.client import asking, make_client, read
from server.swarm.remote.identity import MANAGER, Certificate, unverified, verifying
from server.swarm.remote.records import Admitted, JoinRequest, ManagerAddress
from server.swarmtext import JOIN_TIMEOUT, TOKEN_NEEDED

timeouts.define("swarm.join", 20.0)  # until a node has joined

#: How often a manager is asked for its root certificate if it can't be reached, and seconds between two attempts.
_ATTEMPTS, _PAUSE = 5, 2.0
#: Seconds before a manager that answered UNAVAILABLE is asked again.
_LATER = 0.5


@dataclass(frozen=True, slots=True)
class Joined:
    """``certificate`` and ``key``: for ``Identity.put``. ``addr``: this node's advertised address, with port."""

    node_id: str
    cluster_id: str
    role: str
    addr: str
    data_path_addr: str
    certificate: Certificate
    key: str
    managers: Sequence[ManagerAddress]


async def join(addresses: Sequence[str], request: JoinRequest) -> Joined:
    """Joins by one of the managers at ``addresses`` (with ports). ``request``: with the token, without ``csr``: this
    function makes the key. While a manager answers that it can't admit nodes now, it is asked again.

    :raises WharfError: UNAVAILABLE: no manager can be reached; INVALID_ARGUMENT: the token is wrong, or the manager is
        one of another swarm; UNAVAILABLE ``JOIN_TIMEOUT``: the deadline ``swarm.join`` has passed.
    """
    from server.swarm import certificates  # here: cryptography needs 5 MiB

    if not request.token:
        raise invalid(TOKEN_NEEDED)
    try:
        certificates.fingerprint(request.token)
    except certificates.InvalidToken as error:
        raise invalid(str(error)) from None
    made = await asyncio.to_thread(certificates.make_request)
    request = replace(request, csr=made.csr)
    try:
        async with asyncio.timeout(timeouts.seconds("swarm.join")) as deadline:
            admitted = await _admitted(addresses, request)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise WharfError(Kind.UNAVAILABLE, JOIN_TIMEOUT) from None
    return Joined(
        node_id=admitted.node_id,
        cluster_id=admitted.cluster_id,
        role=admitted.role,
        addr=admitted.addr,
        data_path_addr=admitted.data_path_addr,
        certificate=admitted.certificate,
        key=made.key,
        managers=admitted.managers,
    )


async def _admitted(addresses: Sequence[str], request: JoinRequest) -> Admitted:
    failures = 0
    while True:
        try:
            address, root = await _root(addresses, request.token)
        except WharfError as error:
            failures += 1
            if error.kind is not Kind.UNAVAILABLE or failures >= _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE)
            continue
        try:
            answer = await _ask(verifying([root]), "POST", address, "/join", request.wire())
            return Admitted.parse(answer)
        except ValueError as error:
            raise invalid(f"the manager's answer is malformed: {error}") from None
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
        await asyncio.sleep(_LATER)


async def _root(addresses: Sequence[str], token: str) -> tuple[str, str]:
    """The first manager that answers, and the root certificate, which the token names."""
    from server.swarm import certificates

    failure = invalid("at least 1 RemoteAddr is required to join")
    for address in addresses:
        try:
            found = (await _ask(unverified(), "GET", address, "/ca")).get("certificate")
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            failure = error
            continue
        root = found if isinstance(found, str) else ""
        try:
            certificates.check_fingerprint(token, root)
        except certificates.InvalidRoot as error:
            raise invalid(str(error)) from None
        return address, root
    raise failure


async def _ask(
    context: ssl.SSLContext, method: str, address: str, path: str, document: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    async with make_client(context, silence=timeouts.seconds("swarm.request")) as client:
        async with asking(client, method, f"https://{address}{wire.VERSION}{path}", MANAGER, document) as response:
            return await read(response, limit=wire.MAX_REQUEST)
