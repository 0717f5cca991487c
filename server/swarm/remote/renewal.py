"""Keeps the certificate of a worker as the swarm wants it, and follows the managers and the role of the node."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from engine.common.errors import Kind, Reason, WharfError
from server.swarm.remote import wire
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Certificate, Identity
from server.swarm.remote.records import Standing

log = logging.getLogger(__name__)

#: Seconds before the managers are asked again.
_RETRY = 2.0
#: The most seconds of one wait: a longer one would not notice that the clock was set.
_LONGEST = 3600.0


async def renewed(managers: Managers) -> tuple[Certificate, str]:
    """A certificate for a new key, with the role that the node shall have now; and the key: for ``Identity.put``.

    :raises WharfError: UNAVAILABLE; PERMISSION_DENIED: the node was removed.
    """
    from server.swarm import certificates  # here: cryptography needs 5 MiB

    request = await asyncio.to_thread(certificates.make_request)
    answer = await managers.request("POST", f"{wire.VERSION}/renew", {"csr": request.csr})
    try:
        return Certificate.parse(answer), request.key
    except ValueError as error:
        raise WharfError(Kind.UNAVAILABLE, f"the manager's answer is malformed: {error}") from None


class Renewal:
    """A loop of a node with this ``role``. ``on_role`` is called at each change with the role that the node shall have.
    ``on_removed``: a manager said that the node was removed from the swarm; it may be called again."""

    def __init__(
        self,
        managers: Managers,
        identity: Identity,
        role: str,
        on_role: Callable[[str], None],
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._managers = managers
        self._identity = identity
        self._role = self._wanted = role
        self._on_role = on_role
        self._on_removed = on_removed
        self._standing: Standing | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                self._changed.clear()
                pause = _LONGEST
                standing = self._standing
                if standing is not None and standing.role != self._wanted:
                    self._wanted = standing.role
                    self._on_role(standing.role)
                # A certificate of another role is fetched by whoever changes what this node is.
                if standing is not None and standing.role == self._role:
                    try:
                        await self._apply(standing)
                    except WharfError as error:
                        log.warning("the node's certificate can't be renewed: %s", error.message)
                        pause = _RETRY
                seconds = (self._identity.current.renew_ns - time.time_ns()) / 1e9
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(max(seconds, _RETRY), pause)):
                        await self._changed.wait()

    async def _apply(self, standing: Standing) -> None:
        """The managers see by the next connection that a new certificate is in use."""
        # First: the managers' certificates may be issued by the new root already.
        await asyncio.to_thread(self._identity.trust, standing.roots)
        mine = self._identity.current
        if mine.root == standing.root and mine.lifetime_ns == standing.lifetime_ns and mine.renew_ns > time.time_ns():
            return
        certificate, key = await renewed(self._managers)
        await asyncio.to_thread(self._identity.put, certificate, key)

    async def _follow(self) -> None:
        logged = ""
        while True:
            pause = _RETRY
            try:
                async with contextlib.aclosing(self._managers.follow()) as standings:
                    async for standing in standings:
                        logged, pause = "", 0.0
                        if standing != self._standing:
                            self._standing = standing
                            self._changed.set()
            except WharfError as error:
                if error.reason is Reason.NODE_REMOVED:
                    self._on_removed()
                if error.message != logged:
                    log.warning("the managers can't be followed: %s", error.message)
                logged, pause = error.message, _RETRY
            await asyncio.sleep(pause)
