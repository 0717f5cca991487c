"""Contexts of builds: changed files, named contexts, several platforms; targets of copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.servers.web import serving

pytestmark = needs_buildx


def read(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.core
def test_a_step_runs_again_when_its_mount_changed_and_only_then(engine: Engine, tmp_path: Path) -> None:
    root = write_context(
        tmp_path / "c",
        {
            "Dockerfile": "FROM busybox AS made\nCOPY seen other /\nRUN mkdir /o && cp /seen /o/seen\n"
            "FROM busybox AS binds\n"
            "RUN --mount=target=/src,source=sub --mount=target=/one,source=sub/one cat /src/* /one > /context\n"
            "FROM busybox AS last\n"
            "RUN --mount=from=made,source=/o,target=/o,rw "
            "touch /o/n; cat /o/seen /proc/sys/kernel/random/uuid > /stage\n"
            "FROM scratch\nCOPY --from=binds /context /\nCOPY --from=last /stage /\n",
            "sub/one": "1\n",
            "sub/two": "2\n",
            "seen": "s\n",
            "other": "o\n",
        },
    )

    def built() -> dict[str, str]:
        build(engine, "-o", str(tmp_path / "out"), str(root))
        return read(tmp_path / "out")

    first = built()
    assert first["context"] == "1\n2\n1\n"
    (root / "sub/two").write_text("changed\n")
    # The mounted stage is rebuilt, but the mounted files are unchanged.
    (root / "other").write_text("changed\n")
    second = built()
    assert second == {"context": "1\nchanged\n1\n", "stage": first["stage"]}
    (root / "seen").write_text("changed\n")
    third = built()
    assert third["stage"].startswith("changed\n")
    assert first["stage"].startswith("s\n")


def test_named_contexts_stand_for_stages(engine: Engine, tmp_path: Path) -> None:
    named = write_context(tmp_path / "n", {".dockerignore": "secret\n", "f": "given\n", "secret": "s\n", "big": "b\n"})
    root = write_context(
        tmp_path / "c",
        {
            "Dockerfile": "FROM busybox AS base\nRUN exit 1\n"
            "FROM scratch AS one\nCOPY --from=base f /\n"
            "FROM base AS whole\n",
        },
    )
    out = tmp_path / "out"
    build(engine, "--build-context", f"base={named}", "--target", "one", "-o", str(out), str(root))
    assert read(out) == {"f": "given\n"}
    build(engine, "--build-context", f"base={named}", "-o", str(tmp_path / "all"), str(root))
    assert set(read(tmp_path / "all")) == {".dockerignore", "f", "big"}
    build(
        engine, "--build-context", "busybox=docker-image://scratch", "-o", str(tmp_path / "e"), "-",
        input=b"FROM busybox\nCOPY <<A /f\nx\nA\n",
    )  # fmt: skip
    assert read(tmp_path / "e") == {"f": "x\n"}


def test_several_platforms_read_one_context(engine: Engine, tmp_path: Path) -> None:
    root = write_context(
        tmp_path / "c",
        {
            "Dockerfile": "FROM scratch AS os-linux\nCOPY f-$TARGETARCH f\n"
            "FROM --platform=$BUILDPLATFORM scratch AS os-windows\nARG TARGETARCH\nCOPY w-$TARGETARCH f\n"
            "FROM os-$TARGETOS\n",
            "w-amd64": "windows\n",
        }
        | {f"f-{arch}": f"{arch}\n" for arch in ("amd64", "arm")},
    )
    text = (root / "Dockerfile").read_text().replace("AS os-linux\n", "AS os-linux\nARG TARGETARCH\n")
    (root / "Dockerfile").write_text(text)
    out = tmp_path / "out"
    build(engine, "--platform", "linux/amd64,linux/arm,windows/amd64", "-o", str(out), str(root))
    assert read(out) == {"linux_amd64/f": "amd64\n", "linux_arm_v7/f": "arm\n", "windows_amd64/f": "windows\n"}
    layout = tmp_path / "layout"
    build(engine, "--platform", "linux/amd64,linux/arm", "-o", f"type=oci,tar=false,dest={layout}", str(root))
    index = json.loads((layout / "index.json").read_text())
    algorithm, _, digest = index["manifests"][0]["digest"].partition(":")
    manifests = json.loads((layout / "blobs" / algorithm / digest).read_text())["manifests"]
    assert [item["platform"]["architecture"] for item in manifests[:2]] == ["amd64", "arm"]
    for item in manifests:
        assert (layout / "blobs" / item["digest"].replace(":", "/")).stat().st_size == item["size"]


def test_targets_of_copies(engine: Engine, tmp_path: Path) -> None:
    root = write_context(tmp_path / "c", {"a.txt": "a\n", "b.txt": "b\n", "d/x": "x\n"})
    (root / "d").chmod(0o2700)
    (root / "Dockerfile").write_text(
        "FROM busybox AS from\nRUN mkdir -p /d/sub && chown 5:6 /d /d/sub && chmod 750 /d /d/sub\n"
        "FROM busybox\n"
        "COPY --from=from /d /kept\nCOPY --from=from --chown=3:4 /d /given\nCOPY d /own\n"
        "COPY *.txt last\nCOPY b.txt a.txt last2\n"
        "RUN stat -c '%n %a %u:%g' /kept /kept/sub /given /given/sub /own > /stats; cat last last2 >> /stats\n"
        "FROM scratch\nCOPY --from=1 /stats /\n"
    )
    build(engine, "-o", str(tmp_path / "out"), str(root))
    assert (tmp_path / "out/stats").read_text() == (
        "/kept 755 0:0\n/kept/sub 750 5:6\n/given 755 3:4\n/given/sub 750 3:4\n/own 755 0:0\nb\na\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM busybox AS a\nCOPY --from=b / /x\nFROM busybox AS b\nFROM a\n",
         'cannot copy from stage "b", it needs to be defined before current stage "a"'),
        ("FROM busybox AS a\nRUN --mount=from=b,target=/x true\nFROM busybox AS b\nFROM a\n",
         'cannot mount from stage "b" to "/x", stage needs to be defined before current command'),
        ("FROM busybox\nENV s=x\nRUN --mount=from=$s,target=/x true\n",
         "'from' doesn't support variable expansion, define alias stage instead"),
        ("FROM busybox\nARG t=tmp\nRUN --mount=type=$t,target=/x true\n",
         'unsupported mount type "tmp" (did you mean tmpfs?)'),
    ],
    ids=["copy", "mount", "from", "type"],
)  # fmt: skip
def test_invalid_mounts_and_copies_are_refused(engine: Engine, text: str, sentence: str) -> None:
    done = build(engine, "-", input=text.encode(), check=False)
    assert done.status != 0
    assert sentence in done.stderr


def test_a_dockerfile_by_url_under_any_name(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "df").write_text("FROM busybox\nARG t=tmpfs\nRUN --mount=type=$t,target=/x touch /x/f\n")
    with serving(tmp_path) as url:
        build(engine, "-f", "some/other.name", f"{url}/df")
        build(engine, "-o", str(tmp_path / "out"), "-", input=f"FROM scratch\nADD {url}/ /d/\n".encode())
    assert [path.name for path in (tmp_path / "out/d").iterdir()] == ["__unnamed__"]
