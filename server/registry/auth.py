"""Authentication at a registry: credentials of a client's header, basic authentication, bearer tokens.

``Credentials`` contain the secrets and never show them; they are only put into requests.
"""

import base64
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.common import jsontext
from engine.common.errors import Kind, WharfError
from server.registry.reference import DEFAULT_DOMAIN, Reference
from server.registry.responses import RegistryError
from server.registry.tokens import refusal

#: Seconds that a token without an expiry is used (the token specification's minimum).
_LIFE = 60.0
_CLIENT_ID = "docker"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """``identity_token`` is a refresh token of an earlier login, ``registry_token`` a bearer token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()

#: Asks a client for its credentials at a registry: user and secret, both "" if it has none. A secret without a user
#: is a token.
Ask = Callable[[str], Awaitable[tuple[str, str]]]


async def ask_credentials(ask: Ask, registry: str) -> Credentials:
    """The credentials that a client gives for a registry."""
    user, secret = await ask(registry)
    return Credentials(user, secret) if user else Credentials(identity_token=secret)


def from_document(document: object) -> Credentials:
    """The object of ``X-Registry-Auth``, of an entry of ``X-Registry-Config`` or of ``POST /auth``; ``auth`` is base64
    of ``user:password``. An invalid object gives empty credentials."""
    if not isinstance(document, Mapping):
        return ANONYMOUS
    lower = {str(key).lower(): value for key, value in document.items()}

    def text(key: str) -> str:
        value = lower.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if not username and (packed := text("auth")):
        try:
            username, _, password = base64.b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ANONYMOUS
    return Credentials(username, password, text("identitytoken"), text("registrytoken"), text("serveraddress"))


def from_header(value: str) -> Credentials:
    """The header ``X-Registry-Auth``: base64 (either alphabet, padded or not) of a JSON object. An invalid one gives
    empty credentials, as in dockerd: clients send all kinds."""
    try:
        bare = value.strip().rstrip("=").replace("+", "-").replace("/", "_")
        data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        return from_document(jsontext.loads(data))
    except (ValueError, binascii.Error):
        return ANONYMOUS


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header."""

    scheme: str
    parameters: Mapping[str, str]


_PARAMETER = re.compile(r'([A-Za-z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)\s*')
_SCHEME = re.compile(r"\s*([A-Za-z][\w-]*)(?:\s+|$)")


def challenges(values: list[str]) -> list[Challenge]:
    """All challenges of the headers, in their order."""
    found: list[Challenge] = []
    for value in values:
        scheme = _SCHEME.match(value)
        if scheme is None:
            continue
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
            for name, quoted, bare in _PARAMETER.findall(value[scheme.end() :])
        }
        found.append(Challenge(scheme[1].lower(), parameters))
    return found


@dataclass(slots=True, repr=False)
class _Token:
    value: str
    expires: float


@dataclass(frozen=True, slots=True, repr=False)
class TokenAnswer:
    token: str
    life: float
    refresh_token: str = ""


#: Sends (method, url, query, form, headers) and returns (status, body).
Fetch = Callable[[str, str, list[tuple[str, str]], dict[str, str] | None, dict[str, str]], Awaitable[tuple[int, bytes]]]


@dataclass(slots=True, repr=False)
class Authorizer:
    """The header ``Authorization`` for one endpoint. Answers challenges and caches tokens by scope."""

    credentials: Credentials
    fetch: Fetch
    secure: bool  # the endpoint is https: never send credentials to a token server over http
    _challenge: Challenge | None = None
    _tokens: dict[str, _Token] = field(default_factory=dict)
    refresh_token: str = ""

    def header(self, scope: str) -> str:
        """The header from cached tokens and credentials, without a request; "" for none."""
        if self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        if self._challenge is None:
            return ""
        if self._challenge.scheme == "basic":
            return self.credentials.basic() if self.credentials.username else ""
        token = self._tokens.get(scope)
        if token is None or token.expires < time.monotonic():
            return ""
        return f"Bearer {token.value}"

    async def answer(self, headers: list[str], scope: str, sent: str, *, offline: bool = False) -> bool:
        """Answers the challenges of a 401. Returns False if there is nothing new to try. ``sent``: the header that was
        refused.

        :raises WharfError: the token server's refusal; INTERNAL if it can't be reached; UNAUTHENTICATED if a password
            is needed and there is none.
        """
        if (known := self.header(scope)) and known != sent:
            return True  # another request has answered it already
        for challenge in challenges(headers):
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                self._challenge = challenge
                if self.credentials.registry_token:
                    return False
                answer = await self._token(challenge, scope, offline=offline)
                self._tokens[scope] = _Token(answer.token, time.monotonic() + max(answer.life - 10, 5))
                self.refresh_token = answer.refresh_token
                return f"Bearer {answer.token}" != sent
            if challenge.scheme == "basic":
                self._challenge = challenge
                if not self.credentials.username:
                    raise RegistryError(Kind.UNAUTHENTICATED, "no basic auth credentials", status=401)
                return sent != self.credentials.basic()
        return False

    async def _token(self, challenge: Challenge, scope: str, *, offline: bool) -> TokenAnswer:
        realm = challenge.parameters["realm"]
        scheme = realm.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise WharfError(Kind.INVALID_ARGUMENT, f"unsupported realm of a token server: {scheme}")
        if self.secure and scheme == "http" and self.credentials:
            raise WharfError(Kind.PERMISSION_DENIED, "refusing to send credentials to a token server without TLS")
        service = challenge.parameters.get("service", "")
        scopes = scope.split() or challenge.parameters.get("scope", "").split()
        if self.credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.credentials.identity_token,
                "service": service,
                "client_id": _CLIENT_ID,
                "scope": " ".join(scopes),
            }
            status, body = await self.fetch("POST", realm, [], form, {})
        else:
            query = [("scope", item) for item in scopes]
            if service:
                query.append(("service", service))
            headers = {}
            if self.credentials.username:
                query.append(("account", self.credentials.username))
                headers["authorization"] = self.credentials.basic()
            if offline:
                query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
            status, body = await self.fetch("GET", realm, query, None, headers)
        if status != 200:
            raise refusal(status, body)
        return _parse(body)


def _unusable(message: str) -> RegistryError:
    return RegistryError(Kind.INTERNAL, message, status=200)


def _parse(body: bytes) -> TokenAnswer:
    try:
        document: Any = jsontext.loads(body)
        token = document.get("access_token") or document.get("token")
        life = float(document.get("expires_in") or _LIFE)
        refresh = document.get("refresh_token") or ""
    except (ValueError, AttributeError, TypeError):
        raise _unusable("unable to decode token response") from None
    if not isinstance(token, str) or not token or not token.isprintable():
        raise _unusable("authorization server did not include a token in the response")
    return TokenAnswer(token, life, refresh if isinstance(refresh, str) else "")


def credentials_key(reference: Reference) -> str:
    """The key of a registry's credentials in clients' configurations (``X-Registry-Config``)."""
    return "https://index.docker.io/v1/" if reference.domain == DEFAULT_DOMAIN else reference.domain


def find_entry(entries: Mapping[str, object], reference: Reference) -> object:
    """The entry of ``X-Registry-Config`` for a registry; None if there is none. Keys of old configurations are URLs."""
    key = credentials_key(reference)
    if key in entries:
        return entries[key]
    host = key.partition("://")[2].partition("/")[0] or key
    for name, entry in entries.items():
        if (name.partition("://")[2] or name).partition("/")[0] == host:
            return entry
    return None
