"""Requests to the managers of the swarm: to any of those that are known, and to another one if it doesn't answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.common import jsontext, timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.remote import wire
from server.swarm.remote.identity import MANAGER, Identity
from server.swarm.remote.records import ManagerAddress, Standing

if TYPE_CHECKING:
    import ssl

    import httpx

timeouts.define("swarm.connect", 4.0)  # TCP and TLS with a manager or a node
timeouts.define("swarm.request", 30.0)  # the answer of a manager


def make_client(context: ssl.SSLContext, *, silence: float) -> httpx.AsyncClient:
    """``silence``: seconds without a byte of an answer after which a server counts as gone."""
    import httpx  # here: a manager without other nodes doesn't need it

    timeout = httpx.Timeout(timeouts.seconds("swarm.request"), connect=timeouts.seconds("swarm.connect"), read=silence)
    # Neither a proxy nor credentials of the environment.
    return httpx.AsyncClient(verify=context, timeout=timeout, trust_env=False, http2=False)


class _Generation:
    """The connections with one version of the certificate; they are closed when the last request has ended."""

    def __init__(self, identity: Identity) -> None:
        self.version = identity.version
        self.client = make_client(identity.client(), silence=wire.SILENCE)
        self.users = 0
        self.stale = False

    async def retire(self) -> None:
        self.stale = True
        if not self.users:
            await self.client.aclose()


class Connections:
    """Connections with this node's certificate. Call ``close`` at the end."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._generation: _Generation | None = None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """One with the certificate as it is now; it stays open until the end of the block.

        :raises WharfError: as ``Identity.client``.
        """
        generation = self._generation
        if generation is None or generation.version != self._identity.version:
            former, generation = generation, _Generation(self._identity)
            self._generation = generation
            if former is not None:
                await former.retire()
        generation.users += 1
        try:
            yield generation.client
        finally:
            generation.users -= 1
            if generation.stale:
                await generation.retire()

    async def close(self) -> None:
        generation, self._generation = self._generation, None
        if generation is not None:
            await generation.retire()


class Managers:
    """``known``: the addresses of managers, with ports. ``on_change`` is called with each new list of managers, which
    the caller stores. Call ``close`` at the end.

    Methods raise WharfError: UNAVAILABLE: no manager answers; or the error that a manager has answered with."""

    def __init__(
        self,
        identity: Identity,
        known: Sequence[str],
        on_change: Callable[[Sequence[ManagerAddress]], None] = lambda managers: None,
    ) -> None:
        self._identity = identity
        #: The one that answered last is the first.
        self._addresses = list(dict.fromkeys(known))
        self._on_change = on_change
        self._managers: Sequence[ManagerAddress] = ()
        self._connections = Connections(identity)

    @property
    def addresses(self) -> Sequence[str]:
        return self._addresses

    def know(self, addresses: Sequence[str]) -> None:
        """Replaces the addresses; the one that answered last stays the first."""
        self._addresses = [each for each in self._addresses if each in addresses]
        self._addresses += [each for each in dict.fromkeys(addresses) if each not in self._addresses]

    def is_manager(self, node_id: str) -> bool:
        """Whether a node is a manager, as far as this node knows."""
        return any(each.node_id == node_id for each in self._managers)

    async def close(self) -> None:
        await self._connections.close()

    async def request(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
        silence: float | None = None,
    ) -> dict[str, Any]:
        """The answer's document. ``repeatable``: another manager gets the same request if a connection fails while it
        waits for the answer. ``silence``: seconds of one manager's silence."""
        failure = _unreachable("no manager is known")
        for address in list(self._addresses):
            try:
                async with self._connections.client() as client:
                    url = f"https://{address}{path}"
                    async with asking(client, method, url, MANAGER, document, silence=silence) as response:
                        answer = await read(response)
            except WharfError as error:
                failure = error
                if error.kind is not Kind.UNAVAILABLE:
                    self._prefer(address)
                    raise
                if not (repeatable or isinstance(error, _Unsent)):
                    raise
                continue
            self._prefer(address)
            return answer
        raise failure

    async def stream(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The documents of a stream. It ends, and is begun again by the caller, when this node has another certificate,
        or when a request has preferred another manager: one that is cut off from the others has an old state."""
        version = self._identity.version
        failure = _unreachable("no manager is known")
        for address in list(self._addresses):
            began = False
            try:
                async with self._connections.client() as client:
                    async with asking(client, "GET", f"https://{address}{path}", MANAGER) as response:
                        async with contextlib.aclosing(_documents(response)) as documents:
                            async for document in documents:
                                began = True
                                if document is not None:
                                    yield document
                                if self._addresses[:1] != [address] or self._identity.version != version:
                                    return
            except WharfError as error:
                if error.kind is Kind.UNAVAILABLE:
                    self._defer(address)
                    failure = error
                    if not began:
                        continue
                raise
            return
        raise failure

    async def standing(self) -> Standing:
        """What a manager says now."""
        async with contextlib.aclosing(self.follow()) as standings:
            async for standing in standings:
                return standing
        raise _unreachable("the managers' answer is empty")

    async def follow(self) -> AsyncGenerator[Standing, None]:
        """What this node must know of its swarm, now and after each change, until the stream ends."""
        async with contextlib.aclosing(self.stream(f"{wire.VERSION}/managers")) as documents:
            async for document in documents:
                try:
                    standing = Standing.parse(document)
                except ValueError as error:
                    raise _unreachable(f"a manager's answer is malformed: {error}") from None
                self._learn(standing.managers)
                yield standing

    def _learn(self, managers: Sequence[ManagerAddress]) -> None:
        if not managers or managers == self._managers:
            return
        self._managers = managers
        found = [each.addr for each in managers if each.addr]
        self.know(found)
        self._on_change(managers)

    def _prefer(self, address: str) -> None:
        if self._addresses[:1] != [address] and address in self._addresses:
            self._addresses.remove(address)
            self._addresses.insert(0, address)

    def _defer(self, address: str) -> None:
        if address in self._addresses:
            self._addresses.remove(address)
            self._addresses.append(address)


class _Unsent(WharfError):
    """No connection was made."""


def _unreachable(reason: str) -> WharfError:
    return WharfError(Kind.UNAVAILABLE, f"rpc error: code = Unavailable desc = {reason}")


@contextlib.asynccontextmanager
async def asking(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    name: str,
    document: Mapping[str, Any] | None = None,
    *,
    silence: float | None = None,
) -> AsyncIterator[httpx.Response]:
    """The answer of a node whose certificate has this name, before its body is read. ``silence``: instead of the
    client's.

    :raises WharfError: UNAVAILABLE: no answer, also while the block reads the body; or the node's.
    """
    import httpx

    content = None if document is None else jsontext.dumps(document)
    address = url.removeprefix("https://").partition("/")[0]
    try:
        timeout = client.timeout
        if silence is not None:
            timeout = httpx.Timeout(connect=timeout.connect, read=silence, write=timeout.write, pool=timeout.pool)
        async with client.stream(
            method, url, content=content, timeout=timeout, extensions={"sni_hostname": name}
        ) as response:
            if response.status_code != 200:
                raise await _error(response)
            yield response
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise _Unsent(Kind.UNAVAILABLE, _connection_error(address, error)) from None
    except (httpx.HTTPError, OSError) as error:
        # OSError: httpcore doesn't translate a TLS alert that comes after the handshake: "unknown ca".
        raise WharfError(Kind.UNAVAILABLE, _connection_error(address, error)) from None


def _connection_error(address: str, error: Exception) -> str:
    """gRPC's sentence, as dockerd prints it."""
    import httpx

    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        reason = "i/o timeout"
    elif "All connection attempts failed" in reason:
        reason = "connect: connection refused"
    return (
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing:'
        f' dial tcp {address}: {reason}"'
    )


async def _error(response: httpx.Response) -> WharfError:
    try:
        return WharfError.from_json(await read(response, limit=wire.MAX_REQUEST))
    except WharfError:
        return _unreachable(f"unexpected HTTP status {response.status_code}")


async def read(response: httpx.Response, limit: int = wire.MAX_ANSWER) -> dict[str, Any]:
    """The document of an answer.

    :raises WharfError: UNAVAILABLE: it is malformed or too long, or doesn't end in time.
    """
    parts, size = [], 0
    try:
        async with timeouts.limit("swarm.request"):
            async for part in response.aiter_raw():
                size += len(part)
                if size > limit:
                    raise _unreachable(f"the answer has more than {limit} bytes")
                parts.append(part)
    except WharfError as error:
        raise _unreachable(error.message) if error.kind is Kind.DEADLINE_EXCEEDED else error from None
    return _loaded(b"".join(parts))


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        return wire.load(data)
    except WharfError as error:
        raise _unreachable(f"the answer is malformed: {error.message}") from None


async def _documents(response: httpx.Response) -> AsyncGenerator[dict[str, Any] | None, None]:
    """The lines of a stream; None: an empty one.

    :raises WharfError: that of the last line; UNAVAILABLE: a line is too long.
    """
    rest = bytearray()
    searched = 0
    async for part in response.aiter_raw():
        rest += part
        while (end := rest.find(b"\n", searched)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            searched = 0
            if not line:
                yield None
                continue
            document = _loaded(line)
            if wire.ERROR in document:
                found = document[wire.ERROR]
                raise WharfError.from_json(found if isinstance(found, dict) else {})
            yield document
        searched = len(rest)
        if searched > wire.MAX_ANSWER:
            raise _unreachable(f"a line of the answer has more than {wire.MAX_ANSWER} bytes")
