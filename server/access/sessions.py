"""Logins to the page (``--ui``) and the sessions that follow. All of them are in memory and end with the daemon.

A client of the API asks for a token (``offer``), which its user's browser exchanges once for a session (``redeem``).
The session has the identity of that client: what exists for it on its socket exists for it on the page.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.common.errors import Kind, WharfError
from server.access.caller import Caller

#: Seconds for which a token can be exchanged.
TOKEN_LIFE = 60.0
#: Seconds after its last request, and after its begin, at which a session ends.
IDLE, LIFE = 12 * 3600.0, 7 * 24 * 3600.0
#: Of each owner: tokens at a time, and sessions at a time. The oldest one ends for a new one.
TOKENS, SESSIONS = 8, 16


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(slots=True, eq=False)
class Session:
    """``id``: the value of the cookie. ``csrf``: what a request that changes something has to repeat (the page's script
    can read it, another site can't). Times are of ``time.monotonic``."""

    caller: Caller
    began: float
    used: float
    id: str = field(default_factory=_secret)
    csrf: str = field(default_factory=_secret)
    ended: bool = False

    def confirmed(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Sessions:
    """``clock``: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[str, tuple[float, Caller]] = {}
        self._sessions: dict[str, Session] = {}

    def offer(self, caller: Caller) -> str:
        """A token for one login with this identity."""
        now = self._clock()
        self._tokens = {token: found for token, found in self._tokens.items() if now - found[0] < TOKEN_LIFE}
        own = [token for token, (_, other) in self._tokens.items() if other.owner == caller.owner]
        for token in own[: max(0, len(own) + 1 - TOKENS)]:
            del self._tokens[token]
        token = _secret()
        self._tokens[token] = now, caller
        return token

    def redeem(self, token: str) -> Session:
        """The session of a token.

        :raises WharfError: UNAUTHENTICATED: the token is unknown, was exchanged already, or is too old.
        """
        now = self._clock()
        began, caller = self._tokens.pop(token, (0.0, None))
        if caller is None or now - began >= TOKEN_LIFE:
            raise WharfError(
                Kind.UNAUTHENTICATED, "this link was used already or is too old: `wharf ui` prints a new one"
            )
        return self.begin(caller)

    def begin(self, caller: Caller) -> Session:
        """A session with this identity."""
        now = self._clock()
        self._end(session for session in list(self._sessions.values()) if self._over(session, now))
        own = [session for session in self._sessions.values() if session.caller.owner == caller.owner]
        own.sort(key=lambda session: session.used)
        self._end(own[: max(0, len(own) + 1 - SESSIONS)])
        session = Session(caller, now, now)
        self._sessions[session.id] = session
        return session

    def find(self, id: str) -> Session | None:
        """The session with this id, which is used now; None: there is none (any more)."""
        session = self._sessions.get(id)
        if session is None:
            return None
        now = self._clock()
        if self._over(session, now):
            self.end(session)
            return None
        session.used = now
        return session

    def end(self, session: Session) -> None:
        self._end((session,))

    def end_all(self) -> None:
        """Ends everything that was granted: the identities may have other rights from now on."""
        self._tokens.clear()
        self._end(list(self._sessions.values()))

    def _end(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            session.ended = True
            self._sessions.pop(session.id, None)

    @staticmethod
    def _over(session: Session, now: float) -> bool:
        return now - session.used >= IDLE or now - session.began >= LIFE
