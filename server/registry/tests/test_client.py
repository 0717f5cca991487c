"""The client against registries that answer in every way they do, and some that they should not."""

import asyncio
import base64
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from engine.common.errors import Kind, WharfError
from server.registry.answers import RegistryError, retry_after
from server.registry.auth import Credentials, challenges, from_header
from server.registry.client import Repository
from server.registry.hosts import Settings, endpoints, is_insecure, origin_of, proxy_for
from server.registry.oci import digest_of
from server.registry.reference import parse
from server.registry.tests.servers import Answer, Seen, scripted

T = TypeVar("T")
SECRET = "kept to ourselves"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}).encode()
TYPE = {"content-type": "application/vnd.oci.image.manifest.v1+json"}


def with_repository(
    address: str,
    step: Callable[[Repository], Awaitable[T]],
    *,
    credentials: Credentials | None = None,
    settings: Settings | None = None,
    push: bool = False,
) -> T:
    async def run() -> T:
        reference = parse(f"{address}/team/app:1")
        who = credentials or Credentials()
        async with Repository(settings or Settings(certs_dir="/nonexistent"), reference, who, push=push) as repository:
            return await step(repository)

    return asyncio.run(asyncio.wait_for(run(), 60))


def errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def test_manifest_over_plain_http_on_loopback() -> None:
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as server:
        data, media_type = with_repository(server.address, lambda repository: repository.manifest("1"))
    assert (data, media_type) == (MANIFEST, TYPE["content-type"])
    assert server.paths() == ["GET /v2/team/app/manifests/1"]


def test_head_tells_digest_type_and_size() -> None:
    fields = {**TYPE, "docker-content-digest": digest_of(MANIFEST)}
    with scripted(lambda request: (200, dict(fields), MANIFEST)) as server:
        head = with_repository(server.address, lambda repository: repository.head("1"))
    assert head == (digest_of(MANIFEST), TYPE["content-type"], len(MANIFEST))


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (
            (404, {}, errors("MANIFEST_UNKNOWN", "manifest unknown")),
            Kind.NOT_FOUND,
            "manifest unknown: manifest unknown",
        ),
        ((401, {}, b""), Kind.UNAUTHENTICATED, "unauthorized: authentication required"),
        ((403, {}, errors("DENIED", "go away")), Kind.PERMISSION_DENIED, "denied: go away"),
        ((500, {}, b"<html>oops</html>"), Kind.INTERNAL, "500"),
        ((200, {"content-type": "text/html"}, b"<html>a login page</html>"), Kind.INVALID_ARGUMENT, "sent no manifest"),
        ((200, {}, b'["a list"]'), Kind.INVALID_ARGUMENT, "sent no manifest"),
        ((302, {"location": "ftp://elsewhere/x"}, b""), Kind.INVALID_ARGUMENT, "without a place to go"),
    ],
)
def test_answers_that_are_no_manifest(answer: Answer, kind: Kind, sentence: str) -> None:
    with scripted(lambda request: (answer[0], dict(answer[1]), answer[2])) as server:
        with pytest.raises(WharfError) as caught:
            with_repository(server.address, lambda repository: repository.manifest("1"))
    assert caught.value.kind is kind
    assert sentence in caught.value.message


def test_a_manifest_is_checked_against_its_digest() -> None:
    wrong = "sha256:" + "00" * 32
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as server:
        with pytest.raises(WharfError, match="manifest verification failed for digest"):
            with_repository(server.address, lambda repository: repository.manifest(wrong))


def test_redirects() -> None:
    """Followed without our secret, and not for ever."""

    def other(request: Seen) -> Answer:
        return (200, {}, b"blob") if request.path == "/storage" else (404, {}, b"")

    with scripted(other) as storage:

        def registry(request: Seen) -> Answer:
            if "authorization" not in request.headers:
                return 401, {"www-authenticate": 'Basic realm="x"'}, b""
            if request.path.endswith("/loop"):
                return 307, {"location": request.path}, b""
            return 307, {"location": f"http://{storage.address}/storage"}, b""

        async def read(repository: Repository, name: str) -> bytes:
            async with repository.blob(name) as (_, pieces):
                return b"".join([piece async for piece in pieces])

        with scripted(registry) as server:
            who = Credentials("user", SECRET)
            assert with_repository(server.address, lambda r: read(r, "sha256:x"), credentials=who) == b"blob"
            assert "authorization" not in storage.seen[0].headers
            with pytest.raises(WharfError, match="stopped after 10 redirects"):
                with_repository(server.address, lambda r: read(r, "loop"), credentials=who)


def test_redirects_from_tls(tmp_path: Path) -> None:
    """To plain HTTP as well, as dockerd (compared with 26.1, also for a registry with a verified certificate); who we
    are stays behind."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    async def read(repository: Repository) -> bytes:
        await repository.manifest(digest_of(MANIFEST))
        async with repository.blob("sha256:x") as (_, pieces):
            return b"".join([piece async for piece in pieces])

    def registry(request: Seen) -> Answer:
        if "authorization" not in request.headers:
            return 401, {"www-authenticate": 'Basic realm="x"'}, b""
        return 307, {"location": f"http://{storage.address}{request.path}"}, b""

    def store(request: Seen) -> Answer:
        return (200, dict(TYPE), MANIFEST) if "/manifests/" in request.path else (200, {}, b"blob")

    with scripted(store) as storage, scripted(registry, tls) as server:
        settings = Settings(certs_dir=str(tmp_path))
        for verified in (False, True):
            if verified:
                (tmp_path / server.address).mkdir()
                authority.cert_pem.write_to_path(tmp_path / server.address / "ca.crt")
            who = Credentials("ali", SECRET)
            assert with_repository(server.address, read, settings=settings, credentials=who) == b"blob"
        assert len(storage.seen) == 4
        assert not any("authorization" in request.headers for request in storage.seen)


def test_credentials_stay_with_the_scheme() -> None:
    """Without ports, https://host and http://host are two servers."""
    assert origin_of("https://host/v2/") != origin_of("http://host/v2/")
    assert origin_of("https://host/v2/") == origin_of("https://host/other")


def test_tokens() -> None:
    """One token for one scope, with our name; asked for again when the registry takes it no more."""
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
    """Followed as dockerd does, and the credentials stay with the first host."""

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


def hosts_file(certs: Path, address: str, text: str) -> Settings:
    """Settings with a ``hosts.toml`` for one registry."""
    (certs / address).mkdir(parents=True, exist_ok=True)
    (certs / address / "hosts.toml").write_text(text)
    return Settings(certs_dir=str(certs))


def test_mirrors_come_first_and_the_registry_behind_them(tmp_path: Path) -> None:
    def mirror(request: Seen) -> Answer:
        return (200, dict(TYPE), MANIFEST) if "/manifests/1" in request.path else (404, {}, b"")

    with scripted(mirror) as near, scripted(lambda request: (200, dict(TYPE), MANIFEST)) as origin:
        settings = hosts_file(tmp_path, origin.address, f'[host."http://{near.address}/cache"]\n')

        async def both(repository: Repository) -> None:
            await repository.manifest("1")
            await repository.manifest("2")

        with_repository(origin.address, both, settings=settings, credentials=Credentials("ali", SECRET))
        namespace = origin.address.replace(":", "%3A")
        assert near.paths()[0] == f"GET /cache/v2/team/app/manifests/1?ns={namespace}"
        assert origin.paths() == ["GET /v2/team/app/manifests/2"]
        assert not any("authorization" in request.headers for request in near.seen)
        origin.seen.clear()
        near.seen.clear()
        with_repository(origin.address, lambda r: r.manifest("1"), settings=settings, push=True)
        assert near.seen == []


def test_mirrors_of_the_flag_are_docker_hubs_alone() -> None:
    """``--registry-mirror`` answered for every registry, and a mirror that ignores ``ns`` put its content under other
    names."""
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as near, scripted(lambda request: (404, {}, b"")) as far:
        settings = Settings(mirrors=(f"http://{near.address}",), certs_dir="/nonexistent")
        with pytest.raises(WharfError):
            with_repository(far.address, lambda r: r.manifest("1"), settings=settings)
        assert near.seen == []

        async def hub() -> bytes:
            async with Repository(settings, parse("busybox:1")) as repository:
                return (await repository.manifest("1"))[0]

        assert asyncio.run(hub()) == MANIFEST
        assert near.paths() == ["GET /v2/library/busybox/manifests/1"]


def test_a_login_asks_the_registry_itself(tmp_path: Path) -> None:
    """A mirror lets everybody in: it can't say whether a password is right."""
    with (
        scripted(lambda request: (200, {}, b"{}")) as near,
        scripted(lambda request: (401, {"www-authenticate": 'Basic realm="x"'}, b"")) as origin,
    ):
        text = f'server = "http://{near.address}"\n[host."http://{near.address}"]\n'
        settings = hosts_file(tmp_path, origin.address, text)

        async def login() -> str:
            who = Credentials("ali", SECRET)
            async with Repository(settings, parse(f"{origin.address}/x"), who, mirrors=False) as repository:
                return await repository.ping()

        with pytest.raises(WharfError) as caught:
            asyncio.run(login())
        assert caught.value.kind is Kind.UNAUTHENTICATED
        assert near.seen == []


def test_a_mirror_that_sends_other_content_is_not_believed(tmp_path: Path) -> None:
    other = MANIFEST + b" "
    lying = {**TYPE, "docker-content-digest": digest_of(MANIFEST)}
    with (
        scripted(lambda request: (200, dict(lying), other)) as near,
        scripted(lambda request: (200, dict(TYPE), MANIFEST)) as origin,
    ):
        settings = hosts_file(tmp_path, origin.address, f'[host."http://{near.address}"]\n')
        digest = digest_of(MANIFEST)

        async def twice(repository: Repository) -> bytes:
            await repository.manifest(digest)
            return (await repository.manifest(digest))[0]

        assert with_repository(origin.address, twice, settings=settings) == MANIFEST
        assert len(near.seen) == 1  # from then on it is not asked


def test_a_mirror_that_may_not_resolve_is_asked_for_digests_alone(tmp_path: Path) -> None:
    serve = lambda request: (200, dict(TYPE), MANIFEST)  # noqa: E731
    with scripted(serve) as near, scripted(serve) as origin:
        text = f'[host."http://{near.address}"]\ncapabilities = ["pull"]\nheader = {{ x-key = "k" }}\n'
        settings = hosts_file(tmp_path, origin.address.replace(":", "_") + "_", text)
        with_repository(origin.address, lambda r: r.manifest("1"), settings=settings)
        assert near.seen == []
        with_repository(origin.address, lambda r: r.manifest(digest_of(MANIFEST)), settings=settings)
        assert [request.headers.get("x-key") for request in near.seen] == ["k"]
        assert "x-key" not in origin.seen[0].headers


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[host", "failed to decode"),
        ("host = 1", "invalid `host` tree"),
        ("server = 1", 'invalid type for "server"'),
        ('server = "http://"', "unable to parse server"),
        ('server = "https://user:x@h"', "unable to parse server"),
        ('[host."https://m:99999999"]', "unable to parse server"),
        ('[host."https://m"]\ncapabilities = ["fly"]', "unknown capability fly"),
        ('[host."https://m"]\nskip_verify = "yes"', 'invalid type for "skip_verify"'),
        ('[host."https://m"]\nclient = [["a", "b", "c"]]', 'for "client"'),
        ('[host."https://m"]\nca = 1', 'invalid type for "ca"'),
    ],
)
def test_hosts_files_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    settings = hosts_file(tmp_path, "lab:5000", text)
    with pytest.raises(WharfError) as caught:
        endpoints(settings, "lab:5000", mirrors=True)
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert sentence in caught.value.message
    assert "hosts.toml" in caught.value.message


def test_what_a_hosts_file_may_say(tmp_path: Path) -> None:
    text = """
        server = "https://upstream.example"
        ca = "root.pem"
        [host."https://near.example/v2/proj"]
        override_path = true
        client = [["c.pem", "c.key"], "both.pem"]
        [host."http://127.0.0.1:5000"]
        skip_verify = true
    """
    settings = hosts_file(tmp_path, "_default", text)
    near, local, server = endpoints(settings, "lab:5000", mirrors=True)
    folder = str(tmp_path / "_default")
    assert (near.api, near.namespace, near.mirror, near.verify) == (
        "https://near.example/v2/proj",
        "lab:5000",
        True,
        True,
    )
    assert near.clients == ((f"{folder}/c.pem", f"{folder}/c.key"), (f"{folder}/both.pem", ""))
    assert (local.api, local.verify) == ("http://127.0.0.1:5000/v2", False)
    # Another host than the name's gets no credentials, whatever the file calls it.
    assert (server.api, server.mirror, server.namespace) == ("https://upstream.example/v2", True, "lab:5000")
    assert server.authorities == (f"{folder}/root.pem",)
    assert [way.base for way in endpoints(settings, "lab:5000", mirrors=False)] == ["https://lab:5000"]
    # A folder that only names mirrors does not say that TLS was set up.
    settings = hosts_file(tmp_path, "127.0.0.1:5001", '[host."https://m"]')
    assert [way.scheme for way in endpoints(settings, "127.0.0.1:5001", mirrors=False)] == ["https", "http"]


def test_certificates_that_a_hosts_file_names(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    serve = lambda request: (200, dict(TYPE), MANIFEST)  # noqa: E731
    with scripted(serve, tls) as near, scripted(lambda request: (404, {}, b"")) as origin:
        own = authority.issue_cert("client@tests")
        text = f'[host."https://{near.address}"]\nca = "ca.pem"\nclient = "both.pem"\n'
        settings = hosts_file(tmp_path, origin.address, text)
        folder = tmp_path / origin.address
        own.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
        with pytest.raises(WharfError):
            with_repository(origin.address, lambda r: r.manifest("1"), settings=settings)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        assert with_repository(origin.address, lambda r: r.manifest("1"), settings=settings)[0] == MANIFEST


@pytest.mark.parametrize("by", ["redirect", "manifest"])
def test_another_host_that_asks_for_credentials_gets_none(by: str) -> None:
    """The URL of a layer stands in the manifest, which anybody may have pushed: its host named a token server of its
    own, and got the password for the registry."""

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


def test_too_many_requests_and_what_they_ask_for() -> None:
    with scripted(lambda request: (429, {"retry-after": "7"}, b"")) as server:
        with pytest.raises(RegistryError) as caught:
            with_repository(server.address, lambda repository: repository.manifest("1"))
    assert (caught.value.again, caught.value.after) == (True, 7.0)
    assert retry_after("100000") == 60.0
    assert retry_after("Fri, 01 Jan 1999 00:00:00 GMT") == 0.0
    assert retry_after("soon") == 0.0


def test_blobs_resume_only_where_the_registry_does() -> None:
    data = bytes(range(256)) * 10

    def ranged(request: Seen) -> Answer:
        start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
        return 206, {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:]

    async def tail(repository: Repository) -> tuple[int, bytes]:
        async with repository.blob("sha256:x", 100) as (start, pieces):
            return start, b"".join([piece async for piece in pieces])

    with scripted(ranged) as server:
        assert with_repository(server.address, tail) == (100, data[100:])
    with scripted(lambda request: (200, {}, data)) as server:
        assert with_repository(server.address, tail) == (0, data)
    lies = {"content-range": "bytes 0-99/100"}
    with scripted(lambda request: (206, dict(lies), data)) as server:
        with pytest.raises(WharfError, match="another range"):
            with_repository(server.address, tail)
    with scripted(lambda request: (200, {"content-length": "99999"}, data)) as server:
        with pytest.raises(WharfError, match="unexpected EOF") as caught:
            with_repository(server.address, tail)
        assert isinstance(caught.value, RegistryError)
        assert caught.value.again


def test_a_registry_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.common import timeouts

    monkeypatch.setitem(timeouts._SECONDS, "registry.answer", 0.2)
    monkeypatch.setitem(timeouts._SECONDS, "registry.connect", 0.2)

    async def run() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with Repository(Settings(certs_dir="/nonexistent"), parse(f"127.0.0.1:{port}/a:1")) as repository:
                with pytest.raises(WharfError, match=r"registry\.(answer|connect): nothing for"):
                    await repository.manifest("1")

    asyncio.run(asyncio.wait_for(run(), 60))


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


def test_where_registries_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(insecure=("lab:5000", "10.0.0.0/8"), mirrors=("https://m",), certs_dir=str(tmp_path))
    assert [e.base for e in endpoints(settings, "docker.io", mirrors=True)] == [
        "https://m",
        "https://registry-1.docker.io",
    ]
    assert [e.scheme for e in endpoints(settings, "lab:5000", mirrors=False)] == ["https", "http"]
    assert is_insecure(settings, "10.1.2.3:80")
    assert is_insecure(settings, "localhost:1")
    assert not is_insecure(settings, "11.1.2.3")
    (tmp_path / "lab:5000").mkdir()
    assert [(e.scheme, e.verify) for e in endpoints(settings, "lab:5000", mirrors=False)] == [("https", True)]
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example, 192.168.0.0/16")
    assert proxy_for(settings, "https", "quay.io") == "http://proxy:3128"
    assert proxy_for(settings, "https", "a.inside.example") == ""
    assert proxy_for(settings, "https", "192.168.7.7:443") == ""
    assert proxy_for(settings, "https", "127.0.0.1:5000") == ""
    assert proxy_for(Settings(https_proxy="http://own:1"), "https", "quay.io") == "http://own:1"


def test_a_body_that_is_left_while_it_is_read_stops_nobody() -> None:
    """The registry stalls in the middle; whoever closes the answer then must not wait for the thread that reads."""
    stalled, over = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            if not connection.recv(65536).startswith(b"GET /"):
                return  # a client that tries TLS first
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1000)
            stalled.set()
            over.wait(60)

    async def left(repository: Repository) -> float:
        async with repository.blob(digest_of(b"")) as (_, pieces):
            reading = asyncio.ensure_future(anext(pieces))
            await asyncio.to_thread(stalled.wait, 60)
            await asyncio.sleep(0.3)  # longer than what came is held back for more: the thread waits for the rest
            ends = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - ends
        assert await reading == b"x" * 1000
        return took

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:

        def serve() -> None:
            while not stalled.is_set():
                answer(listener.accept()[0])

        served = server.submit(serve)
        try:
            took = with_repository(f"127.0.0.1:{listener.getsockname()[1]}", left)
        finally:
            over.set()
        served.result(60)
    assert took < 30  # the deadline for a registry's next byte is longer
