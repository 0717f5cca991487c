"""Remote log drivers: what a server receives, what stays readable here, and when the container blocks."""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.log_servers import Collector, Fluentd, LogPlugin, gelf_messages, unpack
from compat_tests.support.streams import close_stream, demultiplex, raw_socket

TWO = ["sh", "-c", "echo out; echo; echo err >&2"]


def settings(driver: str, **options: str) -> dict[str, Any]:
    config = {key.replace("_", "-"): value for key, value in options.items()}
    return {"HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": driver, "Config": config}}}


def finish(engine: Engine, box: str) -> int:
    return int(engine.api.post(f"/containers/{box}/wait").json()["StatusCode"])


def logs(engine: Engine, box: str, **query: Any) -> dict[int, bytes]:
    answer = engine.api.get(f"/containers/{box}/logs", **{"stdout": 1, "stderr": 1, **query})
    assert answer.status == 200, answer.body
    return demultiplex(answer.body)


@pytest.fixture(autouse=True)
def reachable(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("the dockerd of the tests has a loopback of its own")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short path, for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="wharf-test-logs-") as name:
        yield Path(name)


@pytest.mark.core
def test_syslog_over_udp_and_the_copy(engine: Engine) -> None:
    with Collector("datagrams") as server:
        log_config = settings(
            "syslog",
            syslog_address=f"udp://127.0.0.1:{server.port}",
            syslog_facility="local3",
            syslog_format="rfc5424",
            tag="{{.Name}}/{{.ID}}",
        )
        with container(engine, Cmd=TWO, **log_config) as box:
            finish(engine, box)
            assert until(lambda: len(server.parts) == 2), server.parts
            name = engine.api.get(f"/containers/{box}/json").json()["Name"][1:]
            tag = f"{name}/{box[:12]}"
            form = re.compile(
                r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) \S+ "
                + f"{re.escape(tag)} \\d+ {re.escape(tag)} - "
                + r"(\w+)\n"
            )
            found = [form.fullmatch(part.decode()) for part in server.parts]
            assert all(found), server.parts
            # local3 is 19; 6 is "info", 3 is "error". Empty lines are not sent.
            assert sorted((int(m[1]), m[2]) for m in found if m) == [(19 << 3 | 3, "err"), (19 << 3 | 6, "out")]
            assert logs(engine, box) == {1: b"out\n\n", 2: b"err\n"}
            assert sum(map(len, logs(engine, box, tail=1).values())) in (1, 4)
            assert engine.api.get(f"/containers/{box}/json").json()["LogPath"] == ""


def test_syslog_over_tcp_and_unix(engine: Engine, folder: Path) -> None:
    with Collector("stream") as server:
        log_config = settings("syslog", syslog_address=f"tcp://127.0.0.1:{server.port}", syslog_format="rfc3164")
        with container(engine, Cmd=TWO, **log_config) as box:
            finish(engine, box)
            lines = server.lines(2)
            form = re.compile(rf"<(3[01]|27)>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d \S+ {box[:12]}\[\d+\]: (out|err)")
            assert all(form.fullmatch(line.decode()) for line in lines), lines
    path = folder / "log"
    with Collector("datagrams", path=path) as server:
        with container(engine, Cmd=TWO, **settings("syslog", syslog_address=f"unixgram://{path}")) as box:
            finish(engine, box)
            assert until(lambda: len(server.parts) == 2), server.parts
            form = re.compile(rf"<\d+>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d {box[:12]}\[\d+\]: (out|err)\n")
            assert all(form.fullmatch(part.decode()) for part in server.parts), server.parts


def test_syslog_over_tls(engine: Engine, folder: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with Collector("stream", tls=context) as server:
        address = f"tcp+tls://127.0.0.1:{server.port}"
        log_config = settings(
            "syslog", syslog_address=address, syslog_tls_ca_cert=str(ca), syslog_format="rfc5424micro"
        )
        with container(engine, Cmd=TWO, **log_config) as box:
            finish(engine, box)
            # RFC 5425: each message is preceded by its length.
            assert until(lambda: server.data.count(b" - ") == 2), server.data
            data = server.data
            while data:
                size, _, data = data.partition(b" ")
                message, data = data[: int(size)], data[int(size) :]
                assert re.match(rb"<(30|27)>1 \S+ ", message), message
        unknown = settings("syslog", syslog_address=address)
        with container(engine, start=False, Cmd=TWO, **unknown) as box:
            answer = engine.api.post(f"/containers/{box}/start")
            assert answer.status == 500
            assert "failed to initialize logging driver" in answer.message
        with container(engine, Cmd=TWO, **settings("syslog", syslog_address=address, syslog_tls_skip_verify="1")):
            assert until(lambda: server.data.count(b"out") == 2), server.data


def test_gelf_over_udp(engine: Engine) -> None:
    noise = "".join(random.Random(5).choices(string.ascii_letters + string.digits, k=9000))
    with Collector("datagrams") as server:
        log_config = settings(
            "gelf", gelf_address=f"udp://127.0.0.1:{server.port}", labels="colour", env="OWN", tag="{{.ImageName}}"
        )
        command = ["sh", "-c", 'echo "$NOISE"; echo err >&2']
        environment = ["OWN=yes", f"NOISE={noise}"]
        with container(engine, Cmd=command, Env=environment, Labels={"colour": "red"}, **log_config) as box:
            finish(engine, box)
            assert until(lambda: len(gelf_messages(server.parts)) == 2), server.parts
            assert max(map(len, server.parts)) <= 1420
            first, second = sorted(gelf_messages(server.parts), key=lambda message: -message["level"])
            assert (first["short_message"], first["level"], first["version"]) == (noise, 6, "1.1")
            assert (second["short_message"], second["level"]) == ("err", 3)
            inspected = engine.api.get(f"/containers/{box}/json").json()
            assert abs(first["timestamp"] - second["timestamp"]) < 60
            assert {key: value for key, value in first.items() if key[0] == "_"} == {
                "_container_id": box,
                "_container_name": inspected["Name"][1:],
                "_image_id": inspected["Image"],
                "_image_name": "busybox",
                "_command": " ".join(command),
                "_tag": "busybox",
                "_created": inspected["Created"],
                "_colour": "red",
                "_OWN": "yes",
            }
            assert logs(engine, box)[1] == noise.encode() + b"\n"


def test_gelf_over_tcp_reconnects(engine: Engine) -> None:
    with Collector("stream") as server:
        script = "read a; echo $a; read b; echo $b"
        log_config = settings("gelf", gelf_address=f"tcp://127.0.0.1:{server.port}", gelf_tcp_reconnect_delay="0")
        with container(engine, Cmd=["sh", "-c", script], OpenStdin=True, **log_config) as box:

            def messages() -> list[str]:
                return [json.loads(text)["short_message"] for text in server.data.split(b"\0")[:-1]]

            def enter(text: str) -> None:
                py_container: Any = engine.client.containers.get(box)
                found = py_container.attach_socket(params={"stdin": 1, "stream": 1})
                raw_socket(found).sendall(text.encode())
                close_stream(found)

            enter("one\n")
            assert until(lambda: messages() == ["one"]), server.data
            server.cut()
            enter("two\n")
            finish(engine, box)
            # dockerd loses the first line after a disconnect.
            assert until(lambda: messages() == ["one", "two"]), server.data


@pytest.mark.core
def test_fluentd(engine: Engine) -> None:
    long = "x" * 20_000
    with Fluentd("stream") as server:
        log_config = settings(
            "fluentd",
            fluentd_address=f"127.0.0.1:{server.port}",
            fluentd_sub_second_precision="true",
            tag="docker.{{.Name}}",
            env="OWN",
        )
        script = "echo out; echo; head -c 20000 /dev/zero | tr '\\0' x; echo; echo err >&2"
        with container(engine, Cmd=["sh", "-c", script], Env=["OWN=yes"], **log_config) as box:
            finish(engine, box)
            assert until(lambda: len(unpack(server.data)) >= 5), server.data
            name = engine.api.get(f"/containers/{box}/json").json()["Name"]
            messages = unpack(server.data)
            assert {message[0] for message in messages} == {f"docker.{name[1:]}"}
            assert all(message[1][0] > 1_600_000_000 and message[1][1] < 10**9 for message in messages)
            records = [message[2] for message in messages]
            same = {"container_id": box, "container_name": name, "OWN": "yes"}
            assert all(same.items() <= record.items() for record in records)
            out = [record for record in records if record["source"] == "stdout"]
            assert [record["log"] for record in records if record["source"] == "stderr"] == ["err"]
            assert [record["log"] for record in out[:2]] == ["out", ""]
            assert "".join(record["log"] for record in out[2:]) == long
            parts = [
                (record["partial_message"], record["partial_ordinal"], record["partial_last"]) for record in out[2:]
            ]
            assert parts == [("true", "1", "false"), ("true", "2", "true")]
            assert len({record["partial_id"] for record in out[2:]}) == 1
            assert logs(engine, box)[1] == b"out\n\n" + long.encode() + b"\n"


def test_fluentd_with_receipts_loses_nothing(engine: Engine) -> None:
    """The connection breaks during transfer: unacknowledged messages are sent again."""
    count = 3000
    with Fluentd("stream") as server:
        log_config = settings(
            "fluentd",
            fluentd_address=f"127.0.0.1:{server.port}",
            fluentd_request_ack="true",
            fluentd_retry_wait="100ms",
        )
        with container(engine, Cmd=["seq", str(count)], **log_config) as box:
            assert until(lambda: b"docker" in server.data or len(server.data) > 1000)
            server.cut()
            finish(engine, box)

            def numbers() -> set[int]:
                # A message may be cut by the disconnect, so find messages by their form.
                return {int(text) for text in re.findall(rb"\xa3log[\xa0-\xbf](\d+)", server.data)}

            assert until(lambda: numbers() >= set(range(1, count + 1)))


def test_blocking_mode_waits_for_a_slow_server(engine: Engine) -> None:
    count = 60_000
    with Collector("stream", paused=True) as server:
        log_config = settings("fluentd", fluentd_address=f"127.0.0.1:{server.port}", cache_disabled="true")
        with container(engine, Cmd=["seq", str(count)], **log_config) as box:
            server.resume()
            assert finish(engine, box) == 0
            assert until(lambda: server.data.count(b"\xa3log") == count), server.data.count(b"\xa3log")
            numbers = re.findall(rb"\xa3log[\xa0-\xbf](\d+)", server.data)
            assert numbers == [b"%d" % number for number in range(1, count + 1)]
            refused = engine.api.get(f"/containers/{box}/logs", stdout=1)
            assert refused.error == (501, "configured logging driver does not support reading")


def test_non_blocking_never_waits(engine: Engine) -> None:
    with Collector("stream", paused=True) as server:
        address = f"tcp://127.0.0.1:{server.port}"
        log_config = settings("syslog", syslog_address=address, mode="non-blocking", max_buffer_size="64k")
        with container(engine, Cmd=["seq", "60000"], **log_config) as box:
            # Without a reader, the container still exits, and the local copy is complete.
            assert finish(engine, box) == 0
            assert logs(engine, box)[1].split() == [b"%d" % number for number in range(1, 60_001)]


@pytest.mark.core
def test_log_plugin_gets_each_line(engine: Engine) -> None:
    name = f"wharf-test-{engine.kind}-{os.getpid()}"
    with LogPlugin(engine, name) as plugin:
        script = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo"
        with container(engine, Cmd=["sh", "-c", script], Env=["A=b"], **settings(name, own="1")) as box:
            finish(engine, box)
            assert until(lambda: "LogDriver.StopLogging" in dict(plugin.calls)), plugin.calls
            assert until(lambda: sum(len(line) for _, line, _ in plugin.lines) == 20_006), plugin.lines
            assert ("stderr", b"err", True) in plugin.lines
            out = [(line, whole) for stream, line, whole in plugin.lines if stream == "stdout"]
            assert out[0] == (b"out", True)
            assert [whole for _, whole in out[1:]] == [False, False]
            _, body = next(call for call in plugin.calls if call[0] == "LogDriver.StartLogging")
            inspected = engine.api.get(f"/containers/{box}/json").json()
            info = body["Info"]
            assert (info["ContainerID"], info["ContainerName"], info["Config"]) == (
                box,
                inspected["Name"],
                {"own": "1"},
            )
            assert "A=b" in info["ContainerEnv"]
            assert dict(plugin.calls)["LogDriver.StopLogging"] == {"File": body["File"]}
            assert logs(engine, box)[1] == b"out\n" + b"x" * 20_000 + b"\n"
        with container(engine, start=False, Cmd=TWO, **settings(name, refuse="1")) as box:
            answer = engine.api.post(f"/containers/{box}/start")
            assert answer.status == 500
            assert "refused by an option" in answer.message
    refused = engine.api.post("/containers/create", {"Image": "busybox", **settings(name)})
    assert refused.error == (
        400,
        f'error looking up logging plugin {name}: plugin "{name}" not found',
    )


def test_invalid_options_are_refused(engine: Engine) -> None:
    def created(driver: str, **options: str) -> tuple[int, str]:
        answer = engine.api.post("/containers/create", {"Image": "busybox", **settings(driver, **options)})
        return answer.status, answer.message

    assert created("syslog", foo="1") == (400, "unknown log opt 'foo' for syslog log driver")
    assert created("syslog", syslog_address="bogus://x") == (400, "unsupported scheme: 'bogus'")
    assert created("syslog", syslog_facility="nope") == (400, "invalid syslog facility")
    assert created("syslog", syslog_format="nope") == (400, "Invalid syslog format")
    assert created("gelf") == (400, "gelf-address is a required parameter")
    assert created("gelf", gelf_address="udp://x") == (400, "gelf: please provide gelf-address as proto://host:port")
    only = '"gelf-tcp-max-reconnect" is only valid for TCP'
    assert created("gelf", gelf_address="udp://x:1", gelf_tcp_max_reconnect="1") == (400, only)
    assert created("fluentd", fluentd_async="x") == (400, 'strconv.ParseBool: parsing "x": invalid syntax')
    assert created("journald", foo="1") == (400, "unknown log opt 'foo' for journald log driver")
    unknown = 'error looking up logging plugin nosuch: plugin "nosuch" not found'
    assert created("nosuch") == (400, unknown)
    for vendor in ("splunk", "awslogs", "gcplogs"):
        status, words = created(vendor)
        assert status == 400
        assert f"log driver {vendor} is not supported" in words

    def started(driver: str, **options: str) -> tuple[int, str]:
        with container(engine, start=False, Cmd=["true"], **settings(driver, **options)) as box:
            answer = engine.api.post(f"/containers/{box}/start")
            return answer.status, answer.message if answer.body else ""

    init = "failed to create task for container: failed to initialize logging driver: "
    dial = "dial tcp 127.0.0.1:1: connect: connection refused"
    assert started("syslog", syslog_address="tcp://127.0.0.1:1") == (500, init + dial)
    assert started("fluentd", fluentd_address="127.0.0.1:1") == (500, init + dial)
    gelf = f"gelf: cannot connect to GELF endpoint: 127.0.0.1:1 {dial}"
    assert started("gelf", gelf_address="tcp://127.0.0.1:1") == (500, init + gelf)
    assert started("json-file", max_size="x") == (500, init + "invalid size: 'x'")
    assert started("fluentd", fluentd_address="127.0.0.1:1", fluentd_async="true") == (204, "")
