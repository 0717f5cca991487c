"""Credentials, challenges and token servers."""

import base64
import json

import pytest

from engine.common.errors import Kind, WharfError
from server.registry.auth import Credentials, challenges, from_header
from server.registry.client import Repository
from server.registry.hosts import origin_of
from server.registry.responses import RegistryError
from server.registry.tests.repositories import MANIFEST, SECRET, TYPE, errors, with_repository
from server.registry.tests.servers import Answer, Seen, scripted


def test_credentials_stay_with_the_scheme() -> None:
    """Without ports, https://host and http://host are two servers."""
    assert origin_of("https://host/v2/") != origin_of("http://host/v2/")
    assert origin_of("https://host/v2/") == origin_of("https://host/other")


def test_tokens() -> None:
    """One token per scope, requested with our credentials; requested again when the registry refuses it."""
    issued: list[str] = []

    def answer(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            issued.append(f"t{len(issued)}")
            return 200, {}, json.dumps({"token": issued[-1], "expires_in": 300}).encode()
        if request.headers.get("authorization") != f"Bearer {issued[-1] if issued else '-'}":
            realm = f"http://{server.address}/token"
            return (
                401,
                {"www-authenticate": f'Bearer realm="{realm}",service="s",scope="repository:team/app:pull"'},
                b"",
            )
        return 200, dict(TYPE), MANIFEST

    async def twice(repository: Repository) -> None:
        await repository.manifest("1")
        await repository.manifest("1")
        issued.append("revoked")
        await repository.manifest("1")

    with scripted(answer) as server:
        with_repository(server.address, twice, credentials=Credentials("ali", SECRET))
    asked = [request for request in server.seen if request.path.startswith("/token")]
    assert len(asked) == 2
    assert "scope=repository%3Ateam%2Fapp%3Apull" in asked[0].path
    assert "account=ali" in asked[0].path
    assert base64.b64decode(asked[0].headers["authorization"].split()[1]).decode() == f"ali:{SECRET}"


@pytest.mark.parametrize("status", [401, 500])
def test_a_token_server_that_refuses(status: int) -> None:
    def answer(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            return status, {}, b""
        return 401, {"www-authenticate": f'Bearer realm="http://{server.address}/token",service="s"'}, b""

    with scripted(answer) as server:
        with pytest.raises(WharfError) as caught:
            with_repository(server.address, lambda r: r.manifest("1"), credentials=Credentials("ali", SECRET))
    assert caught.value.kind is (Kind.UNAUTHENTICATED if status == 401 else Kind.INTERNAL)
    assert SECRET not in caught.value.message


def test_a_token_server_that_is_down() -> None:
    with scripted(lambda request: (200, {}, b"")) as gone:
        realm = f"http://{gone.address}/token"
    with scripted(lambda request: (401, {"www-authenticate": f'Bearer realm="{realm}"'}, b"")) as server:
        with pytest.raises(WharfError, match="/token") as caught:
            with_repository(server.address, lambda r: r.manifest("1"), credentials=Credentials("ali", SECRET))
    assert caught.value.kind is Kind.INTERNAL
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ((503, {}, b"<html>"), Kind.INTERNAL, "received unexpected HTTP status: 503 Service Unavailable"),
        (
            (503, {}, errors("UNAVAILABLE", "the database is down")),
            Kind.INTERNAL,
            "received unexpected HTTP status: 503 Service Unavailable: unavailable: the database is down",
        ),
        ((400, {}, errors("UNSUPPORTED", "bad scope")), Kind.INTERNAL, "unsupported: bad scope"),
        ((401, {}, errors("UNAUTHORIZED", "who are you")), Kind.UNAUTHENTICATED, "unauthorized: who are you"),
        ((401, {}, b'{"details": "wrong password"}'), Kind.UNAUTHENTICATED, "unauthorized: wrong password"),
        ((401, {}, b""), Kind.UNAUTHENTICATED, "unauthorized: incorrect username or password"),
        ((403, {}, errors("DENIED", "locked")), Kind.PERMISSION_DENIED, "denied: locked"),
        ((404, {}, b"nope"), Kind.INTERNAL, "unknown: nope"),
        ((429, {}, errors("TOOMANYREQUESTS", "slow down")), Kind.INTERNAL, "toomanyrequests: slow down"),
        ((200, {}, b"{}"), Kind.INTERNAL, "authorization server did not include a token in the response"),
        ((200, {}, b"<html>"), Kind.INTERNAL, "unable to decode token response"),
    ],
)
def test_what_a_token_server_says_is_passed_on(answer: Answer, kind: Kind, sentence: str) -> None:
    """In dockerd's words; its own message was lost ("the token server answered 503")."""

    def registry(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            return answer[0], dict(answer[1]), answer[2]
        return 401, {"www-authenticate": f'Bearer realm="http://{server.address}/token"'}, b""

    with scripted(registry) as server:
        who = Credentials("ali", SECRET)
        with pytest.raises(RegistryError) as caught:
            with_repository(server.address, lambda r: r.manifest("1"), credentials=who)
        assert caught.value.kind is kind
        assert caught.value.message == f'Get "http://{server.address}/v2/team/app/manifests/1": {sentence}'
        with pytest.raises(RegistryError) as caught:
            with_repository(server.address, lambda r: r.ping(), credentials=who)
        assert caught.value.message == f'Get "http://{server.address}/v2/": {sentence}'


def test_a_token_server_that_redirects() -> None:
    """Followed as in dockerd; only the first host gets the credentials."""

    def other(request: Seen) -> Answer:
        return 200, {}, b'{"token": "t"}'

    def registry(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            return 302, {"location": f"http://{elsewhere.address}/token"}, b""
        if request.headers.get("authorization") == "Bearer t":
            return 200, dict(TYPE), MANIFEST
        return 401, {"www-authenticate": f'Bearer realm="http://{server.address}/token"'}, b""

    with scripted(other) as elsewhere, scripted(registry) as server:
        who = Credentials("ali", SECRET)
        assert with_repository(server.address, lambda r: r.manifest("1"), credentials=who)[0] == MANIFEST
        assert "authorization" not in elsewhere.seen[0].headers


@pytest.mark.parametrize("by", ["redirect", "manifest"])
def test_another_host_that_asks_for_credentials_gets_none(by: str) -> None:
    """A manifest, which anyone may have pushed, has the URL of a layer: its host named a token server of its own and
    received the registry's password."""

    def thief(request: Seen) -> Answer:
        if request.path.startswith("/token"):
            return 200, {}, b'{"token": "t"}'
        return 401, {"www-authenticate": f'Bearer realm="http://{server.address}/token"'}, b""

    def registry(request: Seen) -> Answer:
        return 307, {"location": f"http://{server.address}/blob"}, b""

    with scripted(thief) as server, scripted(registry) as origin:

        async def fetch(repository: Repository) -> None:
            async with repository.blob("sha256:x", url="" if by == "redirect" else f"http://{server.address}/blob"):
                pass

        with pytest.raises(WharfError) as caught:
            with_repository(origin.address, fetch, credentials=Credentials("ali", SECRET))
        assert caught.value.kind is Kind.UNAUTHENTICATED
        assert server.paths() == ["GET /blob"]
        assert "authorization" not in server.seen[0].headers


def test_credentials_in_all_forms() -> None:
    def header(document: object, *, url: bool = True) -> str:
        data = json.dumps(document).encode()
        return (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()

    plain = {"username": "ü?>", "password": "p~~~", "serveraddress": "h"}
    for value in (header(plain), header(plain, url=False), header(plain).rstrip("=")):
        assert from_header(value) == Credentials("ü?>", "p~~~", server="h")
    packed = base64.b64encode(b"user:pass:word").decode()
    assert from_header(header({"auth": packed})) == Credentials("user", "pass:word")
    assert from_header(header({"identitytoken": "i"})).identity_token == "i"
    assert from_header(header({"registrytoken": "r"})).registry_token == "r"
    for bad in ("", "!!!", header([]), header(None), header("x")):
        assert not from_header(bad)
    assert SECRET not in repr(Credentials("u", SECRET, SECRET, SECRET))


def test_challenges() -> None:
    found = challenges(['Bearer realm="https://a/b?c=\\"d\\"",service=x y, scope="s:t:pull,push"', "Basic"])
    assert [c.scheme for c in found] == ["bearer", "basic"]
    assert found[0].parameters["realm"] == 'https://a/b?c="d"'
    assert found[0].parameters["scope"] == "s:t:pull,push"
