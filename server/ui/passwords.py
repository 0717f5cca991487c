"""Passwords of the host's users, checked by PAM: the service is ``wharf`` (``/etc/pam.d/wharf``)."""

import asyncio
import logging
from importlib.util import find_spec
from pathlib import Path

from engine.common import timeouts
from engine.common.errors import Kind, WharfError

log = logging.getLogger(__name__)

timeouts.define("ui.password", 30.0)  # PAM may ask a directory server, and delays the answer to a wrong password

SERVICE = "wharf"
#: How many passwords are checked at a time: each occupies a thread.
_AT_ONCE = 2
_WRONG = "the user or the password is wrong"


class Passwords:
    """``available``: whether passwords can be checked: the package pamela is installed, and PAM knows the service."""

    def __init__(self, service: Path = Path("/etc/pam.d") / SERVICE) -> None:
        self._service = service
        self._free = asyncio.Semaphore(_AT_ONCE)

    @property
    def available(self) -> bool:
        return self._service.exists() and find_spec("pamela") is not None

    async def check(self, user: str, password: str) -> None:
        """Returns if the password is right, and the account may log in.

        :raises WharfError: UNAUTHENTICATED: it is not; UNAVAILABLE: too many passwords are being checked.
        """
        if not self.available:
            raise WharfError(Kind.UNAUTHENTICATED, f"passwords are not accepted: {self._service} or pamela is missing")
        if self._free.locked():
            raise WharfError(Kind.UNAVAILABLE, "other passwords are being checked: try again")
        async with self._free, timeouts.limit("ui.password"):
            await asyncio.to_thread(self._check, user, password)

    def _check(self, user: str, password: str) -> None:
        import pamela  # here: with the first password

        try:
            pamela.authenticate(user, password, SERVICE)
        except pamela.PAMError as error:
            log.warning("page: the login of %r failed: %s", user, error)
            raise WharfError(Kind.UNAUTHENTICATED, _WRONG) from None
