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
from server.swarmtext import TOKEN_NEEDED

#: How often the managers are asked for their root certificate before the first has answered, and seconds between two
#: attempts.
_ATTEMPTS, _PAUSE = 5, 2.0
#: Seconds before managers that can't admit the node are asked again: the first pause, by what each next one is longer,
#: and the longest.
_LATER, _FACTOR, _LATEST = 0.5, 1.25, 10.0


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


async def join(addresses: Sequence[str], request: JoinRequest, *, patient: bool = False) -> Joined:
    """Joins by one of the managers at ``addresses`` (with ports). ``request``: with the token, without ``csr``: this
    function makes the key. When a manager has answered once, or if it is ``patient``, they are asked until one admits
    the node: there is no deadline.

    :raises WharfError: UNAVAILABLE: no manager can be reached; INVALID_ARGUMENT: the token is wrong, or the manager is
        one of another swarm.
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
    admitted = await _admitted(addresses, request, patient=patient)
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


async def _admitted(addresses: Sequence[str], request: JoinRequest, *, patient: bool) -> Admitted:
    failures, answered, pause = 0, patient, _LATER
    while True:
        try:
            address, root = await _root(addresses, request.token)
            answered = True
            answer = await _ask(verifying([root]), "POST", address, "/join", request.wire())
            return Admitted.parse(answer)
        except ValueError as error:
            raise invalid(f"the manager's answer is malformed: {error}") from None
        except WharfError as error:
            failures += 1
            if error.kind is not Kind.UNAVAILABLE or (failures >= _ATTEMPTS and not answered):
                raise
        if not answered:
            await asyncio.sleep(_PAUSE)
            continue
        await asyncio.sleep(pause)
        pause = min(pause * _FACTOR, _LATEST)


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
