"""`docker build`, `buildx`, `bake` and compose's builds: BuildKit's protocol with the real buildx."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compat_tests.clients.builder import builds
from compat_tests.clients.builder.builds import Case
from compat_tests.clients.builder.buildx import build, needs_buildx, write_context
from compat_tests.clients.builder.corpus import CASES, MORE
from compat_tests.clients.builder.corpus_buildkit import BUILDKIT, BUILDKIT_BAD
from compat_tests.clients.builder.record import BUILDKIT_GOLDEN
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import pids_of
from compat_tests.support.polling import until

pytestmark = needs_buildx


@pytest.mark.core
def test_a_build_and_its_cache(engine: Engine, tmp_path: Path) -> None:
    files = {
        "Dockerfile": 'FROM busybox\nENV A=b\nRUN echo hel\'\'lo; echo oops >&2\nCOPY f /x/\nCMD ["cat", "/x/f"]\n'
    }
    root = write_context(tmp_path, {**files, "f": "data\n", "unused": "u"})
    # `docker build` itself, as users type it
    done = engine.docker("build", "--progress=plain", "-t", "bk:1", "-t", "bk:2", str(root), timeout=110)
    assert "[2/3] RUN echo hel''lo" in done.stderr
    assert " hello\n" in done.stderr
    assert " oops\n" in done.stderr
    assert "naming to docker.io/library/bk:1" in done.stderr
    assert engine.docker("run", "--rm", "--network", "none", "bk:2").stdout == "data\n"
    again = build(engine, "-t", "bk:1", str(root))
    assert again.stderr.count("CACHED") == 2
    (root / "f").write_text("new\n")
    changed = build(engine, "-t", "bk:1", str(root))
    assert changed.stderr.count("CACHED") == 1
    assert engine.docker("run", "--rm", "--network", "none", "bk:1").stdout == "new\n"
    quiet = engine.docker("build", "-q", str(root), timeout=110)
    assert quiet.stdout.strip() == engine.docker("image", "inspect", "-f", "{{.Id}}", "bk:1").stdout.strip()
    fresh = build(engine, "--no-cache", str(root))
    assert "CACHED" not in fresh.stderr


@pytest.mark.core
def test_a_failing_step_is_shown_with_its_lines(engine: Engine, tmp_path: Path) -> None:
    root = write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN true\nRUN echo before && exit 7\nRUN true\n"})
    done = build(engine, str(root), check=False)
    assert done.status != 0
    assert 'process "/bin/sh -c echo before && exit 7" did not complete successfully: exit code: 7' in done.stderr
    assert "Dockerfile:3" in done.stderr
    assert "   3 | >>> RUN echo before && exit 7" in done.stderr
    assert "before" in done.stderr


@pytest.mark.parametrize(
    ("dockerfile", "sentence"),
    [
        ("FROM busybox\nRUNN x\n", "unknown instruction: RUNN"),
        ("FROM busybox\nCOPY nope /\n", '"/nope": not found'),
        ("FROM a AS b\nCOPY --from=c x y\nFROM b AS c\n", "circular dependency"),
        ("", "cannot be empty"),
        ("# syntax=example/other:1\nFROM busybox\n", "example/other:1 is not supported"),
    ],
)
def test_invalid_dockerfiles_are_refused(engine: Engine, tmp_path: Path, dockerfile: str, sentence: str) -> None:
    done = build(engine, str(write_context(tmp_path, {"Dockerfile": dockerfile})), check=False)
    assert done.status != 0
    assert sentence in done.stderr


@functools.cache
def golden() -> dict[str, Any]:
    """Debian's dockerd's BuildKit results of the corpus (clients/builder/record.py)."""
    answers: dict[str, Any] = json.loads(BUILDKIT_GOLDEN.read_text())
    return answers


def test_same_images_as_dockerds_buildkit(engine: Engine, tmp_path: Path) -> None:
    """The whole corpus, two builds at a time."""

    def found(name: str, case: Case) -> Any:
        done = builds.by_buildx(engine, case, tmp_path / name, "-t", f"bk-corpus:{name}")
        return done.stderr if done.status else builds.facts(engine, f"bk-corpus:{name}")

    cases = {**CASES, **MORE, **BUILDKIT}
    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(cases, pool.map(found, cases, cases.values()), strict=True))
    assert builds.dumped(answers) == builds.dumped(golden()["images"])


def test_refused_in_buildkits_words(engine: Engine, tmp_path: Path) -> None:
    """The error's sentence, and its lines of the Dockerfile."""

    def found(name: str, case: Case) -> str:
        return builds.sentence(builds.by_buildx(engine, case, tmp_path / name))

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(BUILDKIT_BAD, pool.map(found, BUILDKIT_BAD, BUILDKIT_BAD.values()), strict=True))
    assert builds.dumped(answers) == builds.dumped(golden()["errors"])


def test_unsupported_options_are_named(engine: Engine, tmp_path: Path) -> None:
    root = str(write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN true\n"}))
    for option, name in (
        ("--sbom=true", "sbom"),
        ("--provenance=mode=max", "mode=max"),
        ("--cache-to=type=elsewhere,name=n", "elsewhere"),
        ("--output=type=image,compression=estargz", "estargz"),
    ):
        done = build(engine, option, root, check=False)
        assert done.status != 0
        assert name in done.stderr
        assert "not supported" in done.stderr
    assert build(engine, "-f", "missing", root, check=False).status != 0


@pytest.mark.core
def test_stages_targets_arguments_and_named_contexts(engine: Engine, tmp_path: Path) -> None:
    root = write_context(
        tmp_path / "main",
        {
            "Dockerfile": (
                "ARG V=none\nFROM busybox AS a\nARG V\nRUN echo $V > /v\nFROM busybox AS b\n"
                "COPY --from=other o /o\nRUN --mount=type=bind,from=a,target=/a cat /a/v /o > /all\n"
                "FROM scratch AS out\nCOPY --from=b /all /all\nFROM b\nLABEL x=y\n"
            ),
        },
    )
    other = write_context(tmp_path / "other", {"o": "other\n"})
    named = f"--build-context=other={other}"
    dest = tmp_path / "dest"
    build(engine, "--build-arg", "V=given", named, "--target", "out", "--output", str(dest), str(root))
    assert (dest / "all").read_text() == "given\nother\n"
    done = build(engine, named, "--label", "l=m", "--iidfile", str(tmp_path / "iid"), "-t", "bk:last", str(root))
    assert "[b 2/3] COPY --from=other o /o" in done.stderr
    image = json.loads(engine.docker("image", "inspect", "bk:last").stdout)[0]
    assert image["Config"]["Labels"] == {"x": "y", "l": "m"}
    assert (tmp_path / "iid").read_text() == image["Id"]


def test_outputs_to_tar_directory_and_archives(engine: Engine, tmp_path: Path) -> None:
    dockerfile = "FROM busybox AS x\nRUN mkdir /o && echo 1 > /o/f && ln -s f /o/l\nFROM scratch\nCOPY --from=x /o /\n"
    root = write_context(tmp_path / "c", {"Dockerfile": dockerfile})
    tar = tmp_path / "o.tar"
    build(engine, f"--output=type=tar,dest={tar}", str(root))
    with tarfile.open(tar) as archive:
        assert {name.strip("./") for name in archive.getnames()} >= {"f", "l"}
    build(engine, f"--output=type=local,dest={tmp_path / 'd'}", str(root))
    assert (tmp_path / "d/f").read_text() == "1\n"
    assert os.readlink(tmp_path / "d/l") == "f"
    image = tmp_path / "image.tar"
    meta = tmp_path / "meta.json"
    build(engine, "-t", "bk:saved", f"--output=type=docker,dest={image}", f"--metadata-file={meta}", str(root))
    document = json.loads(meta.read_text())
    assert document["containerimage.digest"].startswith("sha256:")
    loaded = engine.docker("load", "-i", str(image))
    assert "bk:saved" in loaded.stdout
    oci = tmp_path / "oci.tar"
    build(engine, f"--output=type=oci,dest={oci}", str(root))
    with tarfile.open(oci) as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())


def test_contexts_from_stdin_and_ignored_files(engine: Engine, tmp_path: Path) -> None:
    root = write_context(
        tmp_path / "c",
        {"Dockerfile": "FROM busybox\nCOPY . /c\nRUN ls /c > /list\n", ".dockerignore": "secret\n*.o\n!keep.o\n",
         "secret": "s", "a.o": "", "keep.o": "", "b": ""},
    )  # fmt: skip
    build(engine, "-t", "bk:ignored", str(root))
    listed = engine.docker("run", "--rm", "--network", "none", "bk:ignored", "cat", "/list").stdout.split()
    assert listed == ["Dockerfile", "b", "keep.o"]
    build(engine, "-t", "bk:stdin", "-", input=b"FROM busybox\nRUN echo in > /f\n")
    assert engine.docker("run", "--rm", "--network", "none", "bk:stdin", "cat", "/f").stdout == "in\n"
    packed = tmp_path / "c.tar"
    # the CLI detects a tar by its first header, which a pax header would hide
    with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(root, arcname=".")
    build(engine, "-t", "bk:tar", "-", input=packed.read_bytes())
    assert "b" in engine.docker("run", "--rm", "--network", "none", "bk:tar", "cat", "/list").stdout.split()
    build(engine, "-t", "bk:f", "-f", "-", str(root), input=b"FROM busybox\nCOPY b /only\n")
    engine.docker("run", "--rm", "--network", "none", "bk:f", "test", "-e", "/only")


@pytest.mark.core
def test_secrets_are_not_stored_and_cache_mounts_persist(engine: Engine, tmp_path: Path) -> None:
    secret = f"s3cret-{os.getpid()}-{time.time_ns()}"
    root = write_context(
        tmp_path,
        {
            "Dockerfile": (
                "FROM busybox\nRUN --mount=type=secret,id=k,required wc -c < /run/secrets/k > /size\n"
                "RUN --mount=type=cache,target=/c echo x >> /c/n && wc -l < /c/n > /count\nARG N\n"
                "RUN --mount=type=tmpfs,target=/t touch /t/x && echo $N\n"
            ),
            "k": secret,
        },
    )
    done = build(engine, "--secret", f"id=k,src={root / 'k'}", "-t", "bk:secret", str(root))
    assert secret not in done.output
    show = ("run", "--rm", "--network", "none", "bk:secret")
    assert engine.docker(*show, "cat", "/size").stdout.strip() == str(len(secret))
    assert engine.docker(*show, "sh", "-c", "ls -A /run/secrets /c /t 2>/dev/null || true").stdout.strip() in (
        "",
        "/c:\n\n/t:",
    )
    found = subprocess.run(["grep", "-rlF", secret, str(engine.resources.root)], capture_output=True, check=False)
    assert found.stdout == b""
    missing = build(engine, str(root), "--no-cache", check=False)
    assert "secret k: not found" in missing.stderr
    build(engine, "--no-cache", "--secret", f"id=k,src={root / 'k'}", "-t", "bk:secret", str(root))
    assert int(engine.docker(*show, "cat", "/count").stdout) == 2


def test_the_builder_is_listed_and_pruned(engine: Engine, tmp_path: Path) -> None:
    root = write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN head -c 100000 /dev/urandom > /r\n"})
    build(engine, str(root))
    listed = engine.docker("buildx", "ls").stdout
    assert "default" in listed
    assert "running" in listed
    assert "linux/amd64" in engine.docker("buildx", "inspect", "default").stdout
    usage = engine.docker("buildx", "du", "--verbose").stdout
    assert "mount / from exec /bin/sh -c head -c 100000 /dev/urandom" in usage
    engine.docker("buildx", "prune", "-af")
    assert "exec /bin/sh -c head" not in engine.docker("buildx", "du", "--verbose").stdout
    assert "CACHED" not in build(engine, str(root)).stderr
    engine.docker("builder", "prune", "-af")


def test_bake_builds_linked_targets(engine: Engine, tmp_path: Path) -> None:
    write_context(
        tmp_path,
        {
            "docker-bake.hcl": (
                'group "default" { targets = ["one", "two", "linked"] }\n'
                'target "linked" {\n tags = ["bk:linked"]\n contexts = { base = "target:one" }\n'
                ' dockerfile-inline = "FROM base\\nCOPY --from=base /n /linked\\n"\n}\n'
                'target "one" {\n tags = ["bk:one"]\n args = { N = "1" }\n}\n'
                'target "two" {\n inherits = ["one"]\n tags = ["bk:two"]\n args = { N = "2" }\n}\n'
            ),
            "Dockerfile": "FROM busybox\nARG N\nRUN echo $N > /n\n",
        },
    )
    engine.docker("buildx", "bake", "--progress=plain", cwd=tmp_path, timeout=110)
    for name, value in (("one", "1"), ("two", "2"), ("linked", "1")):
        assert engine.docker("run", "--rm", "--network", "none", f"bk:{name}", "cat", "/n").stdout.strip() == value


@pytest.mark.skipif(not os.path.exists("/usr/libexec/docker/cli-plugins/docker-compose"), reason="needs compose")
def test_compose_builds_an_image(engine: Engine, tmp_path: Path) -> None:
    write_context(
        tmp_path,
        {
            "compose.yaml": (
                "services:\n  web:\n    build:\n      context: .\n      args: {N: composed}\n    image: bk:compose\n"
                "    network_mode: none\n"
            ),
            "Dockerfile": 'FROM busybox\nARG N\nRUN echo $N > /n\nCMD ["cat", "/n"]\n',
        },
    )
    try:
        done = engine.docker("compose", "-p", "bkc", "up", "--build", "--no-log-prefix", cwd=tmp_path, timeout=110)
        assert "composed" in done.output
    finally:
        engine.docker("compose", "-p", "bkc", "down", "-v", cwd=tmp_path)


def test_killed_client_ends_its_build(engine: Engine, tmp_path: Path) -> None:
    marker = f"97{os.getpid()}"
    root = write_context(tmp_path, {"Dockerfile": f"FROM busybox\nRUN sleep {marker}\n"})
    with engine.popen("buildx", "build", "--progress=plain", str(root)) as client:
        assert until(lambda: _running(marker), seconds=60)
        client.send_signal(signal.SIGKILL)
        client.wait()
        # buildx is a child of the docker CLI: it exits with its parent's socket, or is killed here.
        for pid in pids_of("docker-buildx", str(root)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert until(lambda: not _running(marker), seconds=60)
    build(engine, "-t", "bk:after", "-", input=b"FROM busybox\nLABEL a=b\n")


def _running(marker: str) -> bool:
    return bool(pids_of("sleep", marker))


def test_repeated_build_has_the_same_digest(engine: Engine, tmp_path: Path) -> None:
    root = write_context(
        tmp_path, {"Dockerfile": "FROM busybox\nARG SOURCE_DATE_EPOCH\nCOPY f /f\nLABEL a=b\n", "f": "x"}
    )
    ids = []
    for number in range(2):
        os.utime(root / "f", (1_700_000_000 + number, 1_700_000_000 + number))
        build(engine, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", "bk:same", str(root))
        ids.append(engine.docker("image", "inspect", "-f", "{{.Id}}", "bk:same").stdout)
    assert ids[0] == ids[1]
