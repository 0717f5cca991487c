"""The API daemon: sockets, versions, metrics, signals, and the store after SIGKILL."""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.api import Api, TcpApi
from compat_tests.support.engines import Wharf
from compat_tests.support.host.ports import free_ports
from compat_tests.support.host.traces import links, mounts_under, nft
from compat_tests.support.images import ROOT
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until

VERSIONS = [f"1.{minor}" for minor in range(24, 52)]
HEAD = b"Host: d\r\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wharf]:
    """An engine with two unix sockets, a TCP port, and a configuration file that the tests change."""
    second = tmp_path_factory.mktemp("sockets") / "second.sock"
    port, metrics = free_ports(), free_ports()
    words = ["-H", f"unix://{second}", "-H", f"tcp://127.0.0.1:{port}", "--metrics-addr", f"127.0.0.1:{metrics}"]
    with engines.wharf("daemon", *words) as engine:
        engine.load_busybox()
        engine.env |= {"SECOND": str(second), "PORT": str(port), "METRICS": str(metrics)}
        yield engine


def sockets(daemon: Wharf) -> tuple[Api, Api, TcpApi]:
    return daemon.api, Api(Path(daemon.env["SECOND"])), TcpApi(int(daemon.env["PORT"]))


def test_every_socket_serves_the_same_engine(daemon: Wharf) -> None:
    identities = {api.get("/info").json()["ID"] for api in sockets(daemon)}
    assert len(identities) == 1
    warnings = daemon.api.get("/info").json()["Warnings"] or []
    assert any(f"API is accessible on http://127.0.0.1:{daemon.env['PORT']} without encryption" in w for w in warnings)
    done = daemon.run(
        "docker", "-H", f"tcp://127.0.0.1:{daemon.env['PORT']}", *("run", "--rm", "-i", "--network", "none"),
        *("busybox", "cat"), input="over tcp\n", env={"DOCKER_HOST": ""},
    )  # fmt: skip
    assert done.stdout == "over tcp\n"


def test_unix_sockets_are_never_open_to_the_world(daemon: Wharf) -> None:
    try:
        group = grp.getgrnam("docker").gr_gid
    except KeyError:
        group = 0
    for path in (daemon.resources.socket, Path(daemon.env["SECOND"])):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, group)


def test_metrics_have_dockerds_names(daemon: Wharf) -> None:
    def values() -> dict[str, float]:
        answer = TcpApi(int(daemon.env["METRICS"])).get("/metrics")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    actions = "engine_daemon_container_actions_seconds"
    before = values()
    daemon.docker("run", "--rm", "--network", "none", "busybox", "true")
    daemon.docker("create", "--name", "metrics", "busybox", "true")
    daemon.docker("diff", "metrics")
    assert values()['engine_daemon_container_states_containers{state="stopped"}'] == 1
    daemon.docker("rm", "metrics")
    after = values()

    def more(name: str) -> float:
        return after[name] - before[name]

    assert more(f'{actions}_count{{action="create"}}') == more(f'{actions}_bucket{{action="create",le="+Inf"}}') == 2
    assert more(f'{actions}_count{{action="start"}}') == 1
    assert more(f'{actions}_count{{action="changes"}}') == 1
    # The engine itself executes the CLI's --rm.
    assert more(f'{actions}_count{{action="delete"}}') == 1
    assert more("engine_daemon_events_total") >= 6
    assert any(name.startswith("engine_daemon_engine_info{") for name in after)
    assert after["process_resident_memory_bytes"] > 1024 * 1024
    # One request of buildx is several calls.
    for kind in ("0", "1"):
        before = values()
        for status, command in enumerate(("true", "false")):
            text = f"FROM busybox\nRUN {command}\n"
            done = daemon.docker("build", "--no-cache", "-", input=text, env={"DOCKER_BUILDKIT": kind}, check=False)
            assert bool(done.status) == bool(status), done.output
        after = values()
        assert more("builder_builds_triggered_total") == 2
        assert more('builder_builds_failed_total{reason="error_processing_commands_error"}') == 1
    # The metrics socket serves nothing else.
    assert TcpApi(int(daemon.env["METRICS"])).get("/info").status == 404


def test_each_version_is_served_with_and_without_its_name(daemon: Wharf) -> None:
    for version in VERSIONS:
        for path in ("/_ping", "/info", "/version", "/containers/json", "/images/json", "/networks", "/volumes"):
            assert daemon.api.get(f"/v{version}{path}").status == 200, (version, path)
    for version, words in (
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client"),
        ("1.56", "client version 1.56 is too new. Maximum supported API version is 1.55"),
        ("2.0", "client version 2.0 is too new"),
    ):
        for path in ("/info", "/_ping", "/containers/json"):
            answer = daemon.api.get(f"/v{version}{path}")
            assert answer.status == 400
            assert answer.message.startswith(words)


def test_ping_has_the_headers_for_negotiation(daemon: Wharf) -> None:
    for method, path in (("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.24/_ping")):
        answer = daemon.api.request(method, path)
        assert (answer.status, answer.body) == (200, b"OK" if method == "GET" else b"")
        headers = answer.headers
        assert headers["Api-Version"] == "1.55"
        assert headers["Ostype"] == "linux"
        assert headers["Docker-Experimental"] == "false"
        assert headers["Builder-Version"] == "2"
        assert headers["Swarm"] == "inactive"
        assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
        assert headers["Pragma"] == "no-cache"
        assert headers["Server"].startswith("Docker/")
        assert headers["Content-Type"].startswith("text/plain")


def test_sighup_applies_the_changed_file(daemon: Wharf) -> None:
    file = daemon.resources.root / "daemon.json"

    def info(key: str) -> object:
        return daemon.api.get("/info").json()[key]

    with daemon.popen("events", "--filter", "type=daemon", "--format", "{{json .}}", stdin=None) as events:
        assert events.stdout is not None
        try:
            assert until(lambda: info("NEventsListener") == 1)
            file.write_text(json.dumps({"labels": ["room=blue"], "debug": True, "shutdown-timeout": 7}))
            os.kill(daemon.daemon.pid, signal.SIGHUP)
            event = json.loads(events.stdout.readline())
            assert event["Action"] == "reload"
            assert "Reloaded configuration: {" in daemon.log()
            assert event["Actor"]["ID"] == info("ID")
            attributes = event["Actor"]["Attributes"]
            assert (attributes["labels"], attributes["debug"]) == ('["room=blue"]', "true")
            assert attributes["shutdown-timeout"] == "7"
            assert (info("Labels"), info("Debug")) == (["room=blue"], True)
            # An invalid file changes nothing, and is logged.
            file.write_text('{"labels": ["room=green"], "debug": fal}')
            os.kill(daemon.daemon.pid, signal.SIGHUP)
            assert until(lambda: "invalid character" in daemon.log())
            assert info("Labels") == ["room=blue"]
            # A key that dockerd doesn't reload is logged too.
            file.write_text(json.dumps({"log-driver": "local"}))
            os.kill(daemon.daemon.pid, signal.SIGHUP)
            assert json.loads(events.stdout.readline())["Action"] == "reload"
            assert (info("LoggingDriver"), info("Labels"), info("Debug")) == ("json-file", [], False)
        finally:
            file.write_text("{}")
            os.kill(daemon.daemon.pid, signal.SIGHUP)
            events.kill()


def test_the_default_stop_timeout_and_its_reload(daemon: Wharf) -> None:
    """A container that ignores the stop signal and sets no timeout is killed after the daemon's."""
    file = daemon.resources.root / "daemon.json"
    daemon.load_busybox()
    ignores = ("busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")

    def seconds(*flags: str) -> float:
        box = daemon.docker("run", "-d", *flags, *ignores).stdout.strip()
        began = time.monotonic()
        daemon.docker("stop", box)
        passed = time.monotonic() - began
        assert daemon.api.get(f"/containers/{box}/json").json()["State"]["ExitCode"] == 137
        daemon.docker("rm", box)
        return passed

    try:
        for timeout in (1, 4):
            file.write_text(json.dumps({"default-stop-timeout": timeout}))
            os.kill(daemon.daemon.pid, signal.SIGHUP)
            reloaded = f'"default-stop-timeout": "{timeout}"'
            assert until(lambda words=reloaded: words in daemon.log())  # type: ignore[misc]
            assert timeout <= seconds() < timeout + 3 * FACTOR
        assert seconds("--stop-timeout", "1") < 4, "the container's own timeout precedes"
    finally:
        file.write_text("{}")
        os.kill(daemon.daemon.pid, signal.SIGHUP)


def test_sigusr1_logs_stacks_and_tasks(daemon: Wharf) -> None:
    stacks = daemon.daemon.stacks()
    assert "Current thread" in stacks
    assert "Task container monitor:\n" in stacks
    assert "server/daemon.py" in stacks
    assert daemon.api.get("/_ping").status == 200


def test_a_second_daemon_is_refused(daemon: Wharf, tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    common = [sys.executable, "-m", "server", "--config-file", str(tmp_path / "daemon.json")]
    roots = ["--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    same = ["--data-root", str(daemon.resources.root / "data"), "--exec-root", str(daemon.resources.root / "run")]
    same += ["--pidfile", str(tmp_path / "pid"), "-H", f"unix://{tmp_path}/sock"]
    for more, words in (
        (
            ["--pidfile", str(daemon.resources.root / "wharfd.pid")],
            f"process with PID {daemon.daemon.pid} is still running",
        ),
        (["-H", daemon.host, "-H", f"tcp://127.0.0.1:{daemon.env['PORT']}"], "address already in use"),
        (same, f"another daemon is using the data root {daemon.resources.root}/data"),
        (
            [
                "--pidfile",
                str(tmp_path / "pid"),
                "-H",
                f"unix://{tmp_path}/sock",
                "--bridge-name",
                daemon.resources.bridge,
            ],
            f"bridge {daemon.resources.bridge} is managed by another engine in this network namespace "
            f"(PID {daemon.daemon.pid}): choose another bridge with --bridge-name and another subnet with --bip",
        ),
    ):
        argv = [*common, *(more if "--data-root" in more else [*roots, *more])]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 1
        assert "failed to start daemon" in done.stderr
        assert words in done.stderr
    assert daemon.api.get("/_ping").status == 200
    assert (daemon.resources.root / "wharfd.pid").read_text().strip() == str(daemon.daemon.pid)
    assert not mounts_under(tmp_path)
    assert daemon.resources.bridge in links()
    assert nft("list", "table", "inet", f"wharf-{daemon.resources.bridge}")


# SIGKILL and SIGTERM come last: they stop the daemon that the module shares.


def use_until_stopped(daemon: Wharf, stop: threading.Event, name: str) -> None:
    """Create, start and remove containers until the daemon is gone."""
    turn = 0
    while not stop.is_set():
        turn += 1
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": [f"{name}v{turn}:/v"]}}
        with contextlib.suppress(OSError, http.client.HTTPException):
            daemon.api.post("/networks/create", {"Name": f"{name}n{turn}", "Driver": "bridge"})
            daemon.api.post("/containers/create", body, name=f"{name}c{turn}")
            daemon.api.post(f"/containers/{name}c{turn}/start")
            daemon.api.delete(f"/containers/{name}c{turn}", force=1)
            daemon.api.delete(f"/volumes/{name}v{turn}")
            daemon.api.delete(f"/networks/{name}n{turn}")


def test_sigkill_leaves_a_consistent_store(daemon: Wharf) -> None:
    for round_ in range(2):
        stop = threading.Event()
        threads = [threading.Thread(target=use_until_stopped, args=(daemon, stop, f"k{round_}t{n}")) for n in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert until(lambda round_=round_: any(  # type: ignore[misc]
                v["Name"].startswith(f"k{round_}") for v in daemon.api.get("/volumes").json()["Volumes"] or []
            ))  # fmt: skip
            daemon.kill("wharfd")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        daemon.start()
        # Every container is either complete or missing: all can be inspected and removed.
        for item in daemon.api.get("/containers/json", all=1).json():
            found = daemon.api.get(f"/containers/{item['Id']}/json")
            assert found.status == 200
            assert found.json()["State"]["Status"] in ("created", "running", "exited")
            assert daemon.api.delete(f"/containers/{item['Id']}", force=1).status == 204
        for item in daemon.api.get("/networks").json():
            if item["Name"].startswith("k"):
                assert daemon.api.delete(f"/networks/{item['Id']}").status == 204
        for item in daemon.api.get("/volumes").json()["Volumes"] or []:
            assert daemon.api.delete(f"/volumes/{item['Name']}").status == 204
        done = daemon.docker("run", "--rm", "busybox", "echo", "whole")
        assert done.stdout == "whole\n"


def test_sigterm_releases_waiting_clients(daemon: Wharf) -> None:
    pidfile = daemon.resources.root / "wharfd.pid"
    assert pidfile.read_text().strip() == str(daemon.daemon.pid)
    with daemon.popen("events", stdin=None) as events, daemon.api.raw() as idle, daemon.api.raw() as waiting:
        waiting.sendall(b"GET /events HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert until(lambda: daemon.api.get("/info").json()["NEventsListener"] == 2)
        assert daemon.daemon.stop() == 0
        events.wait(30)
        assert idle.recv(1) == b""
    assert not pidfile.exists()
    assert not daemon.resources.socket.exists()
    assert not Path(daemon.env["SECOND"]).exists()
    assert "Traceback" not in daemon.log()
    daemon.start()
