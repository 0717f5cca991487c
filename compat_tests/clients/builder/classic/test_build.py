"""The classic builder: raw `POST /build`, docker-py and the CLI, compared with recorded answers of Debian's dockerd."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from compat_tests.clients.builder import builds
from compat_tests.clients.builder.builds import Built, Case, classic
from compat_tests.clients.builder.corpus import BAD, CASES, MORE, MORE_BAD
from compat_tests.clients.builder.record import GOLDEN, classic_facts
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.web import serving

HELLO = Case('FROM busybox\nENV A=b\nRUN echo hello; echo oops >&2\nCOPY f /x/\nCMD ["cat", "/x/f"]\n', {"f": "data\n"})


@functools.cache
def golden() -> dict[str, Any]:
    """Debian's dockerd's results of the corpus; `--engine dockerd` verifies that they are current."""
    answers: dict[str, Any] = json.loads(GOLDEN.read_text())
    return answers


@pytest.mark.core
@pytest.mark.parametrize("name", sorted(CASES))
def test_same_image_as_dockerd(engine: Engine, name: str) -> None:
    built = classic(engine, CASES[name])
    assert built.error == "", built.text
    found = {"config": builds.config(engine, built.image), "tree": builds.tree(engine, built.image)}
    assert builds.dumped(found) == builds.dumped(golden()["images"][name])


@pytest.mark.parametrize("name", sorted(BAD))
def test_refused_in_dockerds_words(engine: Engine, name: str) -> None:
    built = classic(engine, BAD[name], forcerm=1)
    assert [built.answer.status, built.error] == golden()["errors"][name]
    assert built.answer.status != 200 or not any("aux" in message for message in built.messages)


def test_images_and_errors_where_builders_differ(engine: Engine) -> None:
    """Run two builds at a time."""
    with ThreadPoolExecutor(2) as pool:
        built = dict(zip(MORE, pool.map(lambda case: classic(engine, case), MORE.values()), strict=True))
        refused = dict(zip(MORE_BAD, pool.map(lambda case: classic(engine, case), MORE_BAD.values()), strict=True))
    found = {name: classic_facts(engine, one) for name, one in built.items()}
    assert builds.dumped(found) == builds.dumped({name: golden()["images"][name] for name in MORE})
    errors = {name: [one.answer.status, one.error] for name, one in refused.items()}
    assert builds.dumped(errors) == builds.dumped({name: golden()["errors"][name] for name in MORE_BAD})


@pytest.mark.core
def test_stream_format(engine: Engine) -> None:
    built = classic(engine, HELLO, t=["hello:1", "hello:2"])
    assert built.answer.headers["Content-Type"] == "application/json"
    short = built.image.removeprefix("sha256:")[:12]
    plain = re.sub(r"\x1b\[\d+m", "", built.text)
    lines = [line for line in plain.splitlines() if not line.startswith(" ---> ")]
    assert lines == [
        "Step 1/5 : FROM busybox",
        "Step 2/5 : ENV A=b",
        "Step 3/5 : RUN echo hello; echo oops >&2",
        *[line for line in lines[3:] if line in ("hello", "oops", "")],
        "Step 4/5 : COPY f /x/",
        'Step 5/5 : CMD ["cat", "/x/f"]',
        f"Successfully built {short}",
        "Successfully tagged hello:1",
        "Successfully tagged hello:2",
    ]
    assert "hello" in built.text
    assert "\x1b[91moops" in built.text
    for tag in ("hello:1", "hello:2"):
        assert builds.run(engine, tag) == "data\n"


@pytest.mark.core
def test_second_build_uses_the_cache_until_something_changes(engine: Engine) -> None:
    case = Case(
        "FROM busybox\nARG V=1\nRUN echo $V; date +%N > /when\nCOPY d /d\nRUN date +%N > /later\n", {"d/f": "1"}
    )
    first = classic(engine, case)
    second = classic(engine, case)
    assert second.image == first.image
    assert second.text.count("Using cache") >= 3
    assert "Running in" not in second.text

    changed = classic(engine, Case(case.dockerfile, {"d/f": "2"}))
    assert changed.image != first.image
    assert changed.text.count("Running in") == 1
    argued = classic(engine, case, buildargs=json.dumps({"V": "2"}))
    assert argued.text.count("Running in") == 2
    anew = classic(engine, case, nocache=1)
    assert "Using cache" not in anew.text
    assert anew.image != first.image


def test_cache_outlives_a_restart(own_engine: Engine) -> None:
    case = Case("FROM busybox\nRUN date +%N > /when\n")
    first = classic(own_engine, case)
    own_engine.restart()
    second = classic(own_engine, case)
    assert second.image == first.image
    assert "Running in" not in second.text
    pruned = own_engine.api.request("POST", "/build/prune", query={"all": 1})
    assert pruned.status == 200
    own_engine.api.delete(f"/images/{first.image}", force=1)
    assert "Running in" in classic(own_engine, case).text


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_context_in_each_compression(engine: Engine, name: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    built = classic(engine, HELLO, body=pack[name](HELLO.context()), t="packed:1")
    assert built.error == ""
    assert builds.run(engine, "packed:1") == "data\n"


@pytest.mark.parametrize("how", ["truncated", "garbage", "traversal"])
def test_hostile_context(engine: Engine, how: str) -> None:
    from compat_tests.support.images import layer

    body = {
        "truncated": HELLO.context()[:1300],
        "garbage": b"no archive at all" * 100,
        "traversal": layer({"Dockerfile": "FROM busybox\n", "../../../../tmp/wharf-escaped": "x"}),
    }[how]
    built = classic(engine, HELLO, body=body)
    assert built.error or how == "traversal"
    assert not Path("/tmp/wharf-escaped").exists()


def test_quiet_prints_only_the_id(engine: Engine) -> None:
    built = classic(engine, HELLO, q=1)
    assert [message.keys() for message in built.messages] == [{"stream"}]
    assert built.text.startswith("sha256:")
    assert built.text.strip() == classic(engine, HELLO).image


def test_unused_build_args_are_reported(engine: Engine) -> None:
    built = classic(engine, HELLO, buildargs=json.dumps({"NOBODY": "1"}))
    assert "[Warning] One or more build-args [NOBODY] were not consumed" in built.text


def test_failing_step_leaves_nothing_and_cache_still_works(engine: Engine) -> None:
    head = "FROM busybox\nRUN date +%N > /when\n"
    failed = classic(engine, Case(head + "RUN sh -c 'exit 42'\n"), forcerm=1)
    assert failed.error == "The command '/bin/sh -c sh -c 'exit 42'' returned a non-zero code: 42"
    detail = failed.messages[-1]["errorDetail"]
    assert detail["code"] == 42
    good = classic(engine, Case(head + "RUN true\n"))
    assert good.error == ""
    assert "Using cache" in good.text


def test_options_of_the_run_containers(engine: Engine) -> None:
    dockerfile = (
        "FROM busybox\n"
        "RUN ip -o addr | grep -c eth0 || true\n"
        "RUN grep somehost /etc/hosts\n"
        "RUN df -k /dev/shm | tail -1 | awk '{print $2}'\n"
        "RUN ulimit -n\n"
    )
    built = classic(
        engine,
        Case(dockerfile),
        networkmode="none",
        extrahosts="somehost:10.1.2.3",
        shmsize=32 << 20,
        memory=64 << 20,
        ulimits=json.dumps([{"Name": "nofile", "Soft": 111, "Hard": 222}]),
    )
    assert built.error == ""
    outputs = [line for line in built.text.splitlines() if not line.startswith((" --->", "Step", "Success"))]
    assert outputs[0] == "0"
    assert outputs[1].split() == ["10.1.2.3", "somehost"]
    assert outputs[2:4] == [str(32 << 10), "111"]


def test_remote_contexts(engine: Engine, tmp_path: Path) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd has a loopback of its own here")
    (tmp_path / "context.tar.gz").write_bytes(gzip.compress(HELLO.context()))
    (tmp_path / "Dockerfile.txt").write_text("FROM busybox\nCMD echo plain\n")
    with serving(tmp_path) as url:
        for remote, output in (
            (f"{url}/context.tar.gz", "data\n"),
            (f"{url}/Dockerfile.txt", "plain\n"),
        ):
            built = classic(engine, HELLO, body=b"", remote=remote, t="remote:1")
            assert built.error == ""
            assert builds.run(engine, "remote:1") == output
        added = Case(f"FROM busybox\nADD {url}/Dockerfile.txt /got/\nCMD cat /got/Dockerfile.txt\n")
        assert classic(engine, added, t="remote:1").error == ""
        assert "echo plain" in builds.run(engine, "remote:1")
        missing = classic(engine, HELLO, body=b"", remote=f"{url}/nothing")
        assert "404" in missing.error


@pytest.mark.core
def test_disconnect_cancels_the_build(engine: Engine) -> None:
    case = Case("FROM busybox\nRUN echo begun; sleep 3600\n")
    sock = engine.api.raw()
    body = case.context()
    head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
    with sock:
        sock.sendall(head.encode() + body)
        got = b""
        while b"begun" not in got.split(b"Running in")[-1]:
            piece = sock.recv(65536)
            assert piece, got
            got += piece
    assert until(lambda: "sleep 3600" not in running_commands(engine)), "the step still runs"
    assert classic(engine, HELLO).error == ""


def running_commands(engine: Engine) -> str:
    """Return the commands of all processes in this engine's cgroups."""
    from compat_tests.support.host.traces import cgroups_named

    found = []
    for group in cgroups_named(engine.resources.cgroup):
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return "\n".join(found)


@pytest.mark.core
def test_builds_by_docker_py(engine: Engine, tmp_path: Path) -> None:
    for name, data in (("Dockerfile", HELLO.dockerfile), ("f", "data\n"), ("skipped", "s"), (".dockerignore", "sk*\n")):
        (tmp_path / name).write_text(data)
    image, lines = engine.client.images.build(path=str(tmp_path), tag="py:1", labels={"made": "by docker-py"}, rm=True)
    assert image.tags == ["py:1"]
    assert image.labels == {"made": "by docker-py"}
    assert "hello" in "".join(str(line.get("stream", "")) for line in lines if isinstance(line, dict))
    from_file, _ = engine.client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo x > /x\n"))
    assert from_file.id

    from docker.errors import BuildError

    with pytest.raises(BuildError, match="non-zero code: 7"):
        engine.client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 7\n"), forcerm=True)


@pytest.mark.core
def test_builds_by_the_cli(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(HELLO.dockerfile)
    (tmp_path / "f").write_text("data\n")
    legacy = {"DOCKER_BUILDKIT": "0"}
    ids = tmp_path / "ids"
    built = engine.docker("build", "-t", "cli:1", "--iidfile", str(ids), str(tmp_path), env=legacy)
    assert "Successfully tagged cli:1" in built.stdout
    assert builds.run(engine, "cli:1") == "data\n"
    assert ids.read_text() == engine.docker("inspect", "-f", "{{.Id}}", "cli:1").stdout.strip()
    quiet = engine.docker("build", "-q", str(tmp_path), env=legacy)
    assert quiet.stdout.startswith("sha256:")
    stdin = engine.docker("build", "-t", "cli:2", "-", input="FROM busybox\nCMD echo piped\n", env=legacy)
    assert "Successfully built" in stdin.stdout
    (tmp_path / "context").mkdir(exist_ok=True)
    (tmp_path / "context/f").write_text("beside")
    beside = ("build", "-t", "cli:3", "-f", "-", str(tmp_path / "context"))
    assert "Successfully built" in engine.docker(*beside, input="FROM busybox\nCOPY f /\n", env=legacy).stdout
    assert builds.run(engine, "cli:2") == "piped\n"
    failed = engine.docker("build", "--force-rm", "-", input="FROM busybox\nRUN exit 9\n", env=legacy, check=False)
    assert failed.status == 9
    assert "returned a non-zero code: 9" in failed.stderr


def test_onbuild_triggers_of_a_base(engine: Engine) -> None:
    base = Case("FROM busybox\nONBUILD RUN echo triggered > /t\nONBUILD COPY f /copied\n", {"f": "c"})
    assert classic(engine, base, t="base:1").error == ""
    built = classic(engine, Case("FROM base:1\nCMD cat /t /copied\n", {"f": "context"}), t="child:1")
    assert "# Executing 2 build triggers" in built.text
    assert builds.run(engine, "child:1") == "triggered\ncontext"
    assert builds.config(engine, "child:1")["OnBuild"] is None


def test_images_are_candidates_for_the_cache(engine: Engine) -> None:
    """`cachefrom`: with the engine's cache gone, an image's layers are matched by its history."""
    dockerfile = (
        "FROM busybox\nARG A=1\nENV X=$A\nRUN head -c 20 /dev/urandom | od > /r\nCOPY f d /x/\nWORKDIR /w\n"
        "RUN head -c 20 /dev/urandom | od > /q\nCMD true\n"
    )

    def build(f: str = "1", **query: Any) -> Built:
        assert engine.api.request("POST", "/build/prune", query={"all": 1}).status == 200
        built = classic(engine, Case(dockerfile, {"f": f, "d": "2"}), **query)
        assert built.error == ""
        return built

    candidates = json.dumps(["candidate:1", "nowhere:1"])
    first = build(t="candidate:1")
    again = build(cachefrom=candidates)
    assert again.image == first.image
    assert again.text.count("Using cache") == 7
    # a changed file invalidates the following steps
    changed = build("9", cachefrom=candidates)
    assert changed.text.count("Using cache") == 3
    assert build(cachefrom=candidates, buildargs=json.dumps({"A": "2"})).text.count("Using cache") == 1
    assert build(cachefrom=candidates, nocache=1).text.count("Using cache") == 0
    assert build().image != first.image


def test_unknown_candidates_for_the_cache_are_none(engine: Engine) -> None:
    case = Case("FROM busybox\nENV X=1\nRUN head -c 20 /dev/urandom | od > /r\nCMD true\n")
    assert classic(engine, case).error == ""
    assert classic(engine, case, cachefrom="[]").text.count("Using cache") == 3
    assert classic(engine, case, cachefrom=json.dumps(["nowhere:1"])).text.count("Using cache") == 0


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_base_without_a_path_gets_the_default(engine: Engine, buildkit: str) -> None:
    """An imported root file system has no environment: dockerd's builders set a PATH that ENV may refer to."""
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("empty"))
        imported = engine.api.request(
            "POST", "/images/create", query={"fromSrc": "-", "repo": "nopath"}, body=file.getvalue()
        )
    assert imported.status == 200, imported.body
    text = "FROM nopath\nENV PATH=$PATH:/more\n"
    id = engine.docker("build", "-q", "-", input=text, env={"DOCKER_BUILDKIT": buildkit}, timeout=110).stdout.strip()
    default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert engine.api.get(f"/images/{id}/json").json()["Config"]["Env"] == [f"PATH={default}:/more"]
    assert not engine.api.get("/images/nopath/json").json()["Config"].get("Env")
