"""Authorization plugins before Wharf and before dockerd: the same plugin, the same requests, the same outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.engines import Dockerd, Engine, Wharf
from compat_tests.support.host import resources
from compat_tests.support.host.ports import free_ports
from compat_tests.support.polling import until
from compat_tests.support.servers.plugins import AuthorizationPlugin, body_of, response

DENY = {"Allow": False, "Msg": "not you"}


class Guarded:
    """An engine behind the plugins `one` and `two`, of which `two` always allows unless a test changes it."""

    def __init__(self, engine: Engine, one: AuthorizationPlugin, two: AuthorizationPlugin) -> None:
        self.engine, self.one, self.two = engine, one, two
        self.denied = f"authorization denied by plugin {one.name}: not you"

    @contextlib.contextmanager
    def rule(self, ask: Callable[[str, dict[str, Any]], Any]) -> Iterator[None]:
        """Answer so, and forget what was shown before."""
        self.one.calls.clear()
        self.two.calls.clear()
        self.one.rule = ask
        try:
            yield
        finally:
            self.one.rule = lambda _kind, _body: None

    def deny(self, kind: str, path: str, verdict: Any = DENY) -> contextlib.AbstractContextManager[None]:
        return self.rule(lambda asked, body: verdict if asked == kind and path in body["RequestUri"] else None)


@contextlib.contextmanager
def guarding(kind: str, label: str, *args: str, plugins: int = 1) -> Iterator[tuple[Engine, list[AuthorizationPlugin]]]:
    """An engine behind plugins, with busybox. It stops before the plugins do."""
    names = [f"wharf-authz-{kind}-{label}-{os.getpid()}-{number}" for number in range(plugins)]
    args = (*args, *(f"--authorization-plugin={name}" for name in names))
    place = resources.allocate(f"authz-{label}-{kind}")
    engine: Engine = Wharf(place, args, containerd=None) if kind == "wharf" else Dockerd(place, args)
    try:
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(AuthorizationPlugin(engine, name)) for name in names]
            engine.start()
            engine.load_busybox()
            try:
                yield engine, running
            finally:
                engine.daemon.stop()
    except BaseException:
        engine.destroy()
        raise
    left = engine.destroy()
    assert not left, left


@pytest.fixture(scope="module", params=["wharf", "dockerd"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with guarding(str(request.param), "two", plugins=2) as (engine, (one, two)):
        yield Guarded(engine, one, two)


def test_what_is_denied_does_not_happen(guarded: Guarded) -> None:
    engine = guarded.engine
    with guarded.deny("Req", "/volumes/create"):
        done = engine.docker("volume", "create", "refused", check=False)
        assert (done.status, done.stderr) == (1, f"Error response from daemon: {guarded.denied}\n")
        answer = engine.api.post("/volumes/create", {"Name": "refused"})
        assert (answer.status, answer.message, answer.headers["Content-Type"]) == (
            403,
            guarded.denied,
            "application/json",
        )
        assert not guarded.two.shown("Req", "/volumes/create")
        assert not guarded.one.shown("Res", "/volumes/create")
    assert engine.api.get("/volumes").json()["Volumes"] in (None, [])


def test_a_policy_on_bodies(guarded: Guarded) -> None:
    engine = guarded.engine

    def unprivileged(kind: str, body: dict[str, Any]) -> Any:
        if kind == "Req" and "/containers/create" in body["RequestUri"]:
            return DENY if json.loads(body_of(body))["HostConfig"]["Privileged"] else None
        return None

    with guarded.rule(unprivileged):
        done = engine.docker("run", "--rm", "--privileged", "busybox", "true", check=False)
        assert (done.status, guarded.denied in done.stderr) == (126, True) or done.status == 125
        assert guarded.denied in done.stderr
        assert engine.docker("run", "--rm", "-i", "busybox", "cat", input="through").stdout == "through"


def test_clients_work_through_them(guarded: Guarded, tmp_path: Path) -> None:
    engine = guarded.engine
    with guarded.rule(lambda _kind, _body: None):
        engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo hello; sleep 1000")
        try:
            assert engine.docker("exec", "box", "sh", "-c", "echo a; echo b >&2").output == "a\nb\n"
            assert until(lambda: engine.docker("logs", "box").stdout == "hello\n")
            (tmp_path / "file").write_bytes(os.urandom(3 << 20))
            engine.docker("cp", str(tmp_path / "file"), "box:/file")
            engine.docker("cp", "box:/file", str(tmp_path / "back"))
            assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
            with engine.popen("logs", "-f", "box") as following:
                assert following.stdout is not None
                assert following.stdout.readline() == b"hello\n"
                engine.docker("stop", "-t", "0", "box")
        finally:
            engine.docker("rm", "-f", "box")
        for builder in ("0", "1"):
            context = "FROM busybox\nRUN echo built > /file\n"
            identity = engine.docker("build", "-q", "-", input=context, env={"DOCKER_BUILDKIT": builder}).stdout.strip()
            assert engine.docker("run", "--rm", identity, "cat", "/file").stdout == "built\n"
            engine.docker("rmi", identity)
        for plugin in (guarded.one, guarded.two):
            assert plugin.shown("Req", "/session")
            assert plugin.shown("Req", "/exec/")
            assert all(set(body) & {"ResponseStatusCode"} for body in plugin.shown("Res", "/containers/create"))


def test_a_denied_response(guarded: Guarded) -> None:
    engine = guarded.engine
    with guarded.deny("Res", "/volumes/kept"):
        engine.docker("volume", "create", "kept")
        answer = engine.api.get("/volumes/kept")
        assert (answer.status, answer.message) == (403, guarded.denied)
        assert not guarded.two.shown("Res", "/volumes/kept")
        shown = guarded.one.shown("Res", "/volumes/kept")[-1]
        assert json.loads(body_of(shown, "ResponseBody"))["Name"] == "kept"
        # The request was handled: a plugin of responses can only withhold the answer.
        answer = engine.api.delete("/volumes/kept")
        assert (answer.status, answer.message) == (403, guarded.denied)
    assert engine.api.get("/volumes/kept").status == 404


def test_a_denied_stream_ends_with_the_error(guarded: Guarded) -> None:
    engine = guarded.engine
    since = time.time()
    engine.docker("volume", "create", "event")
    engine.docker("volume", "rm", "event")
    with guarded.deny("Res", "/events"):
        answer = engine.api.get("/events", since=f"{since:.9f}", until=f"{time.time():.9f}")
        rows = answer.lines()
        assert answer.status == 200
        assert [row.get("Action") for row in rows[:2]] == ["create", "destroy"]
        assert rows[-1] == {"message": guarded.denied}
        (shown,) = guarded.one.shown("Res", "/events")
        assert not {"ResponseStatusCode", "ResponseBody", "ResponseHeaders"} & set(shown)


@pytest.mark.parametrize("kind", ["Req", "Res"])
@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (response(500, b'{"Err": "broken"}'), "AuthZPlugin.AuthZ{kind}: broken"),
        (response(418, b'{"Allow": true}'), 'AuthZPlugin.AuthZ{kind}: {{"Allow": true}}'),
        (response(200, b""), ""),
        (response(200, b"yes"), ""),
        (response(200, b'["Allow"]'), ""),
        (response(200, b'{"Allow": "true"}'), ""),
    ],
)
def test_a_plugin_that_fails(guarded: Guarded, kind: str, verdict: bytes, sentence: str) -> None:
    with guarded.deny(kind, "/version", verdict):
        answer = guarded.engine.api.get("/version")
        assert answer.status == 500
        assert answer.message.startswith(f"plugin {guarded.one.name} failed with error: {sentence.format(kind=kind)}")


@pytest.mark.parametrize("kind", ["Req", "Res"])
def test_an_answer_without_a_verdict_denies(guarded: Guarded, kind: str) -> None:
    for verdict in ({}, {"Allow": None}, {"Err": "broken"}):
        with guarded.deny(kind, "/version", verdict):
            answer = guarded.engine.api.get("/version")
            assert (answer.status, answer.message) == (403, f"authorization denied by plugin {guarded.one.name}: ")
    with guarded.deny(kind, "/version", {"allow": True, "Err": "ignored"}):
        assert guarded.engine.api.get("/version").status == 200


def test_a_plugin_that_is_restarted_delays_requests(guarded: Guarded) -> None:
    engine = guarded.engine
    guarded.one.close()
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(engine.api.get("/version").status))
    asking.start()
    time.sleep(0.3)
    guarded.one.open()
    asking.join(60)
    assert answers == [200]


@pytest.mark.parametrize("chunks", [False, True])
def test_a_body_that_is_too_large_to_be_shown_is_refused(guarded: Guarded, *, chunks: bool) -> None:
    """CVE-2024-41110: such a body must not pass unseen. The limit is that of dockerd 29."""
    engine = guarded.engine
    if engine.kind == "dockerd" and int(engine.api.get("/version").json()["Version"].split(".")[0]) < 29:
        pytest.skip("this dockerd shows no body of more than 1 MiB")
    body = json.dumps({"Name": "large", "Labels": {"a": "x" * (4 << 20)}}).encode()
    parts = (body[at : at + 65536] for at in range(0, len(body), 65536))
    with guarded.rule(lambda _kind, _body: None), contextlib.closing(engine.api.connection()) as connection:
        headers = {"Content-Type": "application/json"}
        if chunks:
            headers["Transfer-Encoding"] = "chunked"
        connection.request("POST", "/volumes/create", parts if chunks else body, headers, encode_chunked=chunks)
        refused = connection.getresponse()
        # A client error: dockerd answers 500.
        assert refused.status == (400 if engine.kind == "wharf" else 500)
        sentence = "request body too large for authorization plugin: size exceeds 4194304 bytes"
        assert json.loads(refused.read()) == {"message": sentence}
        assert not guarded.one.shown("Req", "/volumes/create")


def test_info_names_them_in_their_order(guarded: Guarded) -> None:
    names = [guarded.one.name, guarded.two.name]
    assert guarded.engine.api.get("/info").json()["Plugins"]["Authorization"] == names
    assert f"  Authorization: {' '.join(names)}\n" in guarded.engine.docker("info").stdout


def asked(engine: Engine, plugin: AuthorizationPlugin) -> list[tuple[str, dict[str, Any]]]:
    """Requests of every kind; returns what the plugin was shown of them."""
    api = engine.api
    box = api.post("/containers/create?name=shown", {"Image": "busybox", "Cmd": ["sleep", "1000"]}).json()["Id"]
    try:
        api.post(f"/containers/{box}/start")
        run = api.post(f"/containers/{box}/exec", {"Cmd": ["true"], "AttachStdout": True}).json()["Id"]
        plugin.calls.clear()
        api.request("GET", "/_ping")
        api.request("HEAD", "/v1.40/_ping")
        api.request("OPTIONS", "/anything")
        api.get("/v1.43/volumes", filters='{"dangling": ["true"]}')
        api.request("GET", "/networks/none", headers={"X-Registry-Auth": "a", "Authorization": "b", "X-A": "c"})
        api.get("/containers/nope/json")
        api.get("/v1.1/info")
        api.get("/nope")
        api.request("POST", "/containers/create", data={"Image": "nope:nope"})
        api.request("POST", "/volumes/create", body=b"{}", headers={"Content-Type": "text/plain"})
        api.request("POST", "/auth", data={"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"})
        api.request("POST", "/images/load", body=b"no archive", headers={"Content-Type": "application/x-tar"})
        api.get(f"/containers/{box}/logs", stdout=1)
        api.get("/events", since=1, until=2)
        api.get(f"/containers/{box}/archive?path=/etc/hostname")
        api.post(f"/exec/{run}/start", {"Detach": False})
        assert until(lambda: any("/exec/" in body["RequestUri"] for _, body in plugin.calls[-1:]))
        assert until(lambda: len(plugin.shown("Res", "/exec/")) == 1)
        # Each use of plugins in Wharf activates them.
        calls = [call for call in plugin.calls if call[0] != "Plugin.Activate"]
        return [(method, stable(body, {box: "BOX", run: "EXEC"})) for method, body in calls]
    finally:
        api.delete(f"/containers/{box}", force=1)


# What differs for reasons of its own: the versions, and the times and names in bodies of responses.
OWN = {"Api-Version", "Server", "User-Agent", "X-Docker-Container-Path-Stat", "Docker-Experimental"}


def stable(body: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(body)
    for identity, name in names.items():
        text = text.replace(identity, name)
    answer: dict[str, Any] = json.loads(text)
    return answer


def comparable(method: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    shown = {name: value for name, value in body.items() if name != "ResponseBody"}
    shown["body"] = bool(body.get("ResponseBody"))
    for name in ("RequestHeaders", "ResponseHeaders"):
        shown[name] = {key: value for key, value in body.get(name, {}).items() if key not in OWN}
    if "/_ping" in body["RequestUri"] or "/archive" in body["RequestUri"]:
        # dockerd's handlers set no status, and leave the type of text to Go's server.
        shown.pop("ResponseStatusCode", None)
        for key in ("Content-Type", "Content-Length"):
            shown["ResponseHeaders"].pop(key, None)
    return method, shown


def test_both_show_the_same() -> None:
    seen: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for kind in ("wharf", "dockerd"):
        with guarding(kind, "same") as (engine, (plugin,)):
            seen[kind] = [comparable(*call) for call in asked(engine, plugin)]
    assert seen["wharf"] == seen["dockerd"]


@pytest.mark.parametrize("kind", ["wharf", "dockerd"])
def test_reload_adds_and_removes(kind: str) -> None:
    with guarding(kind, "reload", plugins=0) as (engine, _):
        name = f"wharf-authz-{kind}-{os.getpid()}-late"
        file = engine.resources.root / "daemon.json"
        before = json.loads(file.read_text())

        def reload(*names: str) -> None:
            file.write_text(json.dumps({**before, "authorization-plugins": list(names)} if names else before))
            engine.daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]

        with AuthorizationPlugin(engine, name) as plugin:
            plugin.rule = lambda kind, body: DENY if "/version" in body["RequestUri"] else None
            connection = engine.api.connection()
            assert engine.api.request("GET", "/version", on=connection).status == 200
            reload(name)
            assert until(lambda: engine.api.get("/version").status == 403)
            # A connection of before has no way around it either.
            assert engine.api.request("GET", "/version", on=connection).status == 403
            if kind == "wharf":
                assert engine.api.get("/info").json()["Plugins"]["Authorization"] == [name]
                # dockerd exits then.
                reload(name, "wharf-nope")
                assert until(lambda: "failed to validate authorization plugin" in engine.log(), seconds=60)
                assert engine.api.get("/version").status == 403
            reload()
            assert until(lambda: engine.api.get("/version").status == 200)
            assert engine.api.request("GET", "/version", on=connection).status == 200
            connection.close()
            assert not engine.api.get("/info").json()["Plugins"]["Authorization"]


@pytest.mark.parametrize("kind", ["wharf", "dockerd"])
def test_the_user_is_the_name_in_the_client_certificate(kind: str, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("x", common_name="Ada")
    server.private_key_pem.write_to_path(str(tmp_path / "server-key.pem"))
    server.cert_chain_pems[0].write_to_path(str(tmp_path / "server-cert.pem"))
    port = free_ports()
    args = ["--tlsverify", "--tlscacert", str(tmp_path / "ca.pem"), "--tlscert", str(tmp_path / "server-cert.pem")]
    args += ["--tlskey", str(tmp_path / "server-key.pem"), "-H", f"tcp://127.0.0.1:{port}"]
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.configure_cert(context)
    with guarding(kind, "tls", *args) as (engine, (plugin,)):
        plugin.calls.clear()
        if kind == "dockerd":
            assert isinstance(engine, Dockerd)
            # It listens in a network namespace of its own.
            script = (
                "import http.client, ssl, sys; c = ssl.create_default_context(cafile=sys.argv[1]);"
                "c.load_cert_chain(sys.argv[2]);"
                "h = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[3]), context=c);"
                "h.request('GET', '/version'); print(h.getresponse().status)"
            )
            (tmp_path / "client.pem").write_bytes(client.private_key_pem.bytes() + client.cert_chain_pems[0].bytes())
            words = ("python3", "-c", script, str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"), str(port))
            assert engine.inside(*words).stdout == "200\n"
        else:
            connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
            connection.request("GET", "/version")
            assert connection.getresponse().status == 200
            connection.close()
        for verb in ("Req", "Res"):
            (shown,) = plugin.shown(verb, "/version")
            assert (shown["User"], shown["UserAuthNMethod"]) == ("Ada", "TLS")
            certificate = body_of({"RequestBody": shown["RequestPeerCertificates"][0]}).decode()
            assert certificate.split() == client.cert_chain_pems[0].bytes().decode().split()
        plugin.calls.clear()
        engine.api.get("/version")
        assert "User" not in plugin.shown("Req", "/version")[0]
