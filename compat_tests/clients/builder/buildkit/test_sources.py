"""Sources of builds: repositories, URLs, OCI layouts, caches; privileges of steps; subrequests."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

from compat_tests.clients.builder.builds import Case, classic
from compat_tests.clients.builder.buildx import build, needs_buildx, needs_git, run_output, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.images import digest
from compat_tests.support.servers.web import repository, serving

pytestmark = needs_buildx


@needs_git
def test_repositories_as_contexts(engine: Engine, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "top\n", "sub/Dockerfile": "FROM busybox\nCOPY f /f\n"}
    repository(tmp_path, "one", {**files, "sub/f": "below\n"})
    repository(tmp_path, "two", {"g": "two\n"})
    repository(tmp_path, "three", {"g": "three\n"})
    with serving(tmp_path) as url:
        for remote, text in ((f"{url}/one.git", "top\n"), (f"{url}/one.git#main:sub", "below\n")):
            built = classic(engine, Case(""), body=b"", remote=remote, t="src:git")
            assert built.error == ""
            assert run_output(engine, "src:git", "cat", "/f") == text
            build(engine, "-t", "src:bk", remote)
            assert run_output(engine, "src:bk", "cat", "/f") == text
        # several at once, beside a main context that is a repository
        named = [f"--build-context={name}={url}/{name}.git" for name in ("two", "three")]
        both = "FROM busybox\nCOPY f /f\nCOPY --from=two g /two\nCOPY --from=three g /three\n"
        repository(tmp_path, "main", {"Dockerfile": both, "f": "main\n"})
        build(engine, *named, "-t", "src:named", f"{url}/main.git")
        assert run_output(engine, "src:named", "cat", "/f", "/two", "/three") == "main\ntwo\nthree\n"
        missing = classic(engine, Case(""), body=b"", remote=f"{url}/none.git")
        assert "error fetching" in missing.error


@needs_git
def test_add_of_repositories_and_urls(engine: Engine, tmp_path: Path) -> None:
    commit = repository(tmp_path, "repo", {"in/f": "f\n"})
    (tmp_path / "file").write_bytes(b"data\n")
    checksum = digest(b"data\n")
    with serving(tmp_path) as url:
        good = (
            "FROM busybox\n"
            f"ADD {url}/repo.git /plain\nADD --keep-git-dir=true {url}/repo.git#main /kept\n"
            f"ADD --checksum={commit} {url}/repo.git#main:in /sub\n"
            f"ADD --checksum={checksum} --chown=3:4 --chmod=640 {url}/file /got\nADD {url}/file /dir/\n"
        )
        build(engine, "-t", "src:add", "-", input=good.encode())
        listing = run_output(
            engine, "src:add", "sh", "-c", "ls -A /plain /kept /sub /dir; stat -c '%u:%g %a' /got; cat /got"
        )
        assert listing == ("/dir:\nfile\n\n/kept:\n.git\nin\n\n/plain:\nin\n\n/sub:\nf\n3:4 640\ndata\n")
        wrong = f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {url}/file /got\n"
        assert f"digest mismatch {checksum}" in build(engine, "-", input=wrong.encode(), check=False).stderr
        again = build(engine, "-", input=good.encode())
        assert again.stderr.count("CACHED") == 5
        # a directory of a repository is a different source than the whole
        for fragment, name in (("main:in", "f"), ("main", "in")):
            out = tmp_path / name
            build(engine, "-o", str(out), "-", input=f"FROM scratch\nADD {url}/repo.git#{fragment} /\n".encode())
            assert os.listdir(out) == [name]


def test_oci_layout_of_the_client_as_a_base(engine: Engine, tmp_path: Path) -> None:
    first = "FROM busybox\nRUN echo laid > /laid\nENV FROM_LAYOUT=1\n"
    build(engine, f"--output=type=oci,dest={tmp_path / 'l.tar'}", "-", input=first.encode())
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "l.tar") as archive:
        archive.extractall(layout, filter="data")
    dockerfile = (
        "FROM base\nRUN cat /laid > /copy\nCOPY --from=base /laid /again\n"
        "RUN --mount=type=bind,from=base,target=/m cat /m/laid > /mounted\n"
    )
    root = write_context(tmp_path / "c", {"Dockerfile": dockerfile})
    build(engine, f"--build-context=base=oci-layout://{layout}", "-t", "src:layout", str(root))
    words = run_output(engine, "src:layout", "sh", "-c", "cat /copy /again /mounted; echo $FROM_LAYOUT")
    assert words == "laid\nlaid\nlaid\n1\n"
    # a blob that does not match its digest
    for blob in (layout / "blobs/sha256").iterdir():
        blob.write_bytes(b"{}")
    engine.docker("rmi", "-f", "src:layout")
    done = build(engine, f"--build-context=base=oci-layout://{layout}", "--no-cache", str(root), check=False)
    assert done.status != 0


def test_cache_mount_is_seeded_from_a_stage(engine: Engine) -> None:
    """A cache mount initialised from another stage, and one that only one step at a time may use."""
    dockerfile = (
        "FROM busybox AS seed\nRUN mkdir /seed && echo seed > /seed/f && chown 5:6 /seed/f\n"
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,id=seeded,target=/c,from=seed,source=/seed echo $N >> /c/f && cat /c/f > /seen "
        "&& stat -c %u:%g /c/f > /owner\n"
    )
    assert build(engine, "-t", "src:cache", "--build-arg", "N=1", "-", input=dockerfile.encode()).status == 0
    assert run_output(engine, "src:cache", "cat", "/seen", "/owner") == "seed\n1\n5:6\n"
    build(engine, "-t", "src:cache", "--build-arg", "N=2", "-", input=dockerfile.encode())
    assert run_output(engine, "src:cache", "cat", "/seen") == "seed\n1\n2\n"
    engine.docker("buildx", "prune", "-af", "--filter", "type=exec.cachemount")
    build(engine, "-t", "src:cache", "--build-arg", "N=3", "-", input=dockerfile.encode())
    assert run_output(engine, "src:cache", "cat", "/seen") == "seed\n3\n"


def test_entitlements_must_be_allowed(engine: Engine) -> None:
    host = b"FROM busybox\nRUN --network=host ip -o link > /links\n"
    insecure = b"FROM busybox\nRUN --security=insecure mount -t tmpfs x /tmp && echo may > /may\n"
    refused = build(engine, "-", input=insecure, check=False)
    assert "security.insecure is not allowed" in refused.stderr
    assert build(engine, "--allow", "security.insecure", "-", input=insecure).status == 0
    assert "network.host is not allowed" in build(engine, "-", input=host, check=False).stderr
    build(engine, "--allow", "network.host", "-t", "src:host", "-", input=host)
    assert f" {engine.resources.bridge}:" in run_output(engine, "src:host", "cat", "/links")


def test_classic_steps_have_the_requested_limits(engine: Engine) -> None:
    """The kernel shows the privileges that a build grants to its steps."""
    dockerfile = (
        "FROM busybox\n"
        "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null | head -1\n"
        "RUN cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | head -1\n"
        "RUN grep Cpus_allowed_list /proc/self/status | cut -f2\n"
    )
    options: dict[str, Any] = {
        "memory": 64 << 20,
        "memswap": 128 << 20,
        "cpuquota": 50_000,
        "cpuperiod": 100_000,
        "cpusetcpus": "0",
    }
    built = classic(engine, Case(dockerfile), nocache=1, **options)
    assert built.error == ""
    lines = [line for line in built.text.splitlines() if not line.startswith((" --->", "Step", "Success"))]
    assert lines[0] == str(64 << 20)
    assert lines[1].split()[0] == "50000"
    assert lines[2] == "0"


PRINTED = (
    "# T tag of the base\nARG T=latest\nARG UNUSED\nFROM busybox:$T AS one\n"
    "RUN --mount=type=ssh,id=agent true\nFROM one as two\n# WHO is greeted\nARG WHO=me\n"
    "RUN --mount=type=secret,id=token,required echo $WHO\nENV GREETING=$NOBODY\n"
)


def test_outline_targets_and_lint(engine: Engine, tmp_path: Path) -> None:
    root = str(write_context(tmp_path, {"Dockerfile": PRINTED}))

    def print_result(question: str) -> str:
        done = engine.docker(
            "buildx", "build", f"--print={question}", root, env={"BUILDX_EXPERIMENTAL": "1"}, check=False, timeout=110
        )
        return done.stdout

    outline = json.loads(print_result("outline,format=json"))
    assert [(item["name"], item["value"], item.get("description", "")) for item in outline["args"]] == [
        ("T", "latest", "tag of the base"),
        ("WHO", "me", "is greeted"),
    ]
    assert [(item["name"], item["required"]) for item in outline["secrets"]] == [("token", True)]
    assert [item["name"] for item in outline["ssh"]] == ["agent"]
    targets = json.loads(print_result("targets,format=json"))["targets"]
    assert [(item["name"], item["base"], item.get("default", False)) for item in targets] == [
        ("one", "busybox:$T", False),
        ("two", "one", True),
    ]
    found = [line.split()[1] for line in print_result("lint").splitlines() if line.startswith("WARNING:")]
    assert found == ["FromAsCasing", "UndefinedVar"]
    # the same in a build
    named = build(engine, "-", input=b"FROM busybox\nRUN true\nENV A=$NOBODY\n")
    assert "UndefinedVar: Usage of undefined variable '$NOBODY' (line 3)" in named.stderr
    strict = build(engine, "-", input=b"# check=error=true\nFROM busybox as a\n", check=False)
    assert "lint violation found for rules: FromAsCasing" in strict.stderr
    lax = build(engine, "-", input=b"# check=skip=FromAsCasing;error=true\nFROM busybox as a\nRUN true\n", check=False)
    assert lax.status == 0


def test_some_stages_without_cache(engine: Engine, tmp_path: Path) -> None:
    """`--no-cache-filter` reruns only the named stages."""
    dockerfile = (
        "FROM busybox AS base\nRUN cat /proc/sys/kernel/random/uuid > /base\n"
        "FROM base AS some\nRUN cat /proc/sys/kernel/random/uuid > /some\n"
        "FROM base\nCOPY --from=some /some /\nRUN cat /proc/sys/kernel/random/uuid > /last\n"
    )
    root = str(write_context(tmp_path, {"Dockerfile": dockerfile}))

    def made(*args: str) -> list[str]:
        done = build(engine, "--load", "-t", "filtered:1", *args, root)
        assert "naming to docker.io/library/filtered:1" in done.stderr
        show = ("run", "--rm", "--network", "none", "filtered:1", "cat", "/base", "/some", "/last")
        return engine.docker(*show).stdout.split()

    first = made()
    assert made() == first
    again = made("--no-cache-filter", "some")
    assert again[0] == first[0]
    assert again[1] != first[1]
    # steps on top of it are rebuilt too
    assert again[2] != first[2]
    assert made() == again


def test_copies_with_parents_and_without_some_files(engine: Engine, tmp_path: Path) -> None:
    files = {"a/b/one.txt": "1", "a/b/two.md": "2", "a/c/three.txt": "3", "top.txt": "t", "a/b/deep/four.md": "4"}
    dockerfile = (
        "# syntax=docker/dockerfile:1-labs\nFROM scratch\n"
        "COPY --parents a/b/one.txt a/*/three.txt /parents/\n"
        "COPY --parents ./a/./c/three.txt /pivot/\n"
        "COPY --exclude=*.md --exclude=**/deep a /excluded/\n"
    )
    root = write_context(tmp_path / "c", {"Dockerfile": dockerfile, **files})
    out = tmp_path / "out"
    build(engine, f"--output=type=local,dest={out}", str(root))
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [
        "excluded/b/one.txt",
        "excluded/b/two.md",
        "excluded/c/three.txt",
        "parents/a/b/one.txt",
        "parents/a/c/three.txt",
        "pivot/c/three.txt",
    ]
