"""Which hosts are asked for a registry: mirrors, `hosts.toml`, insecure registries, proxies."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from engine.common.errors import Kind, WharfError
from server.config.model import Config
from server.registry.auth import Credentials
from server.registry.client import Repository
from server.registry.hosts import endpoints, is_insecure, proxy_for
from server.registry.oci import digest_of
from server.registry.reference import parse
from server.registry.tests.repositories import MANIFEST, SECRET, TYPE, with_repository
from server.registry.tests.servers import Answer, Seen, scripted


def hosts_file(certs: Path, address: str, text: str) -> Config:
    """A configuration with a ``hosts.toml`` for one registry."""
    (certs / address).mkdir(parents=True, exist_ok=True)
    (certs / address / "hosts.toml").write_text(text)
    return Config(certs_dir=certs)


def test_mirrors_come_first_and_the_registry_behind_them(tmp_path: Path) -> None:
    def mirror(request: Seen) -> Answer:
        return (200, dict(TYPE), MANIFEST) if "/manifests/1" in request.path else (404, {}, b"")

    with scripted(mirror) as near, scripted(lambda request: (200, dict(TYPE), MANIFEST)) as origin:
        config = hosts_file(tmp_path, origin.address, f'[host."http://{near.address}/cache"]\n')

        async def both(repository: Repository) -> None:
            await repository.manifest("1")
            await repository.manifest("2")

        with_repository(origin.address, both, config=config, credentials=Credentials("ali", SECRET))
        namespace = origin.address.replace(":", "%3A")
        assert near.paths()[0] == f"GET /cache/v2/team/app/manifests/1?ns={namespace}"
        assert origin.paths() == ["GET /v2/team/app/manifests/2"]
        assert not any("authorization" in request.headers for request in near.seen)
        origin.seen.clear()
        near.seen.clear()
        with_repository(origin.address, lambda r: r.manifest("1"), config=config, push=True)
        assert near.seen == []


def test_mirrors_of_the_flag_are_docker_hubs_alone() -> None:
    """A mirror of ``--registry-mirror`` served every registry, and one that ignores ``ns`` returned its content under
    other names."""
    with scripted(lambda request: (200, dict(TYPE), MANIFEST)) as near, scripted(lambda request: (404, {}, b"")) as far:
        config = Config(registry_mirrors=(f"http://{near.address}",), certs_dir=Path("/nonexistent"))
        with pytest.raises(WharfError):
            with_repository(far.address, lambda r: r.manifest("1"), config=config)
        assert near.seen == []

        async def hub() -> bytes:
            async with Repository(config, parse("busybox:1")) as repository:
                return (await repository.manifest("1"))[0]

        assert asyncio.run(hub()) == MANIFEST
        assert near.paths() == ["GET /v2/library/busybox/manifests/1"]


def test_a_login_asks_the_registry_itself(tmp_path: Path) -> None:
    """A mirror needs no password, so it can't verify one."""
    with (
        scripted(lambda request: (200, {}, b"{}")) as near,
        scripted(lambda request: (401, {"www-authenticate": 'Basic realm="x"'}, b"")) as origin,
    ):
        text = f'server = "http://{near.address}"\n[host."http://{near.address}"]\n'
        config = hosts_file(tmp_path, origin.address, text)

        async def login() -> str:
            who = Credentials("ali", SECRET)
            async with Repository(config, parse(f"{origin.address}/x"), who, mirrors=False) as repository:
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
        config = hosts_file(tmp_path, origin.address, f'[host."http://{near.address}"]\n')
        digest = digest_of(MANIFEST)

        async def twice(repository: Repository) -> bytes:
            await repository.manifest(digest)
            return (await repository.manifest(digest))[0]

        assert with_repository(origin.address, twice, config=config) == MANIFEST
        assert len(near.seen) == 1  # it isn't used again


def test_a_mirror_that_may_not_resolve_is_asked_for_digests_alone(tmp_path: Path) -> None:
    serve = lambda request: (200, dict(TYPE), MANIFEST)  # noqa: E731
    with scripted(serve) as near, scripted(serve) as origin:
        text = f'[host."http://{near.address}"]\ncapabilities = ["pull"]\nheader = {{ x-key = "k" }}\n'
        config = hosts_file(tmp_path, origin.address.replace(":", "_") + "_", text)
        with_repository(origin.address, lambda r: r.manifest("1"), config=config)
        assert near.seen == []
        with_repository(origin.address, lambda r: r.manifest(digest_of(MANIFEST)), config=config)
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
    config = hosts_file(tmp_path, "lab:5000", text)
    with pytest.raises(WharfError) as caught:
        endpoints(config, "lab:5000", mirrors=True)
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
    config = hosts_file(tmp_path, "_default", text)
    near, local, server = endpoints(config, "lab:5000", mirrors=True)
    folder = str(tmp_path / "_default")
    assert (near.api, near.namespace, near.mirror, near.verify) == (
        "https://near.example/v2/proj",
        "lab:5000",
        True,
        True,
    )
    assert near.clients == ((f"{folder}/c.pem", f"{folder}/c.key"), (f"{folder}/both.pem", ""))
    assert (local.api, local.verify) == ("http://127.0.0.1:5000/v2", False)
    # A host other than the registry's gets no credentials, whatever the file says.
    assert (server.api, server.mirror, server.namespace) == ("https://upstream.example/v2", True, "lab:5000")
    assert server.authorities == (f"{folder}/root.pem",)
    assert [way.base for way in endpoints(config, "lab:5000", mirrors=False)] == ["https://lab:5000"]
    # A folder that only names mirrors doesn't enable TLS.
    config = hosts_file(tmp_path, "127.0.0.1:5001", '[host."https://m"]')
    assert [way.scheme for way in endpoints(config, "127.0.0.1:5001", mirrors=False)] == ["https", "http"]


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
        config = hosts_file(tmp_path, origin.address, text)
        folder = tmp_path / origin.address
        own.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
        with pytest.raises(WharfError):
            with_repository(origin.address, lambda r: r.manifest("1"), config=config)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        assert with_repository(origin.address, lambda r: r.manifest("1"), config=config)[0] == MANIFEST


def test_where_registries_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(insecure_registries=("lab:5000", "10.0.0.0/8"), registry_mirrors=("https://m",), certs_dir=tmp_path)
    assert [e.base for e in endpoints(config, "docker.io", mirrors=True)] == [
        "https://m",
        "https://registry-1.docker.io",
    ]
    assert [e.scheme for e in endpoints(config, "lab:5000", mirrors=False)] == ["https", "http"]
    assert is_insecure(config, "10.1.2.3:80")
    assert is_insecure(config, "localhost:1")
    assert not is_insecure(config, "11.1.2.3")
    (tmp_path / "lab:5000").mkdir()
    assert [(e.scheme, e.verify) for e in endpoints(config, "lab:5000", mirrors=False)] == [("https", True)]
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example, 192.168.0.0/16")
    assert proxy_for(config, "https", "quay.io") == "http://proxy:3128"
    assert proxy_for(config, "https", "a.inside.example") == ""
    assert proxy_for(config, "https", "192.168.7.7:443") == ""
    assert proxy_for(config, "https", "127.0.0.1:5000") == ""
    assert proxy_for(Config(https_proxy="http://own:1"), "https", "quay.io") == "http://own:1"
