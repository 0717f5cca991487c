"""Definition-based cache keys: a cache with only the last layers is enough, and the source stages don't run."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, write_context
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.servers.registry import Registry, registry

pytestmark = needs_buildx

STAGES = """FROM busybox AS one
COPY one /in
RUN head -c 9 /dev/urandom | od -A n -t x1 > /one
FROM busybox AS two
WORKDIR /two
COPY two /in
RUN head -c 9 /dev/urandom | od -A n -t x1 > /two/two
FROM busybox
COPY --from=one /one /one
RUN head -c 9 /dev/urandom | od -A n -t x1 > /three
COPY --from=two /two/two /two
RUN --mount=type=bind,from=two,source=/two,target=/m cat /m/two > /four
"""
FILES = {"Dockerfile": STAGES, "one": "1\n", "two": "2\n"}
STEPS = 9


@pytest.fixture
def root(engine: Engine, tmp_path: Path) -> str:
    engine.docker("builder", "prune", "-af")
    return str(write_context(tmp_path / "context", FILES))


def build_files(engine: Engine, *args: str) -> tuple[dict[str, str], set[str]]:
    """Build; return the files, and the steps that ran rather than being cached."""
    output = build(engine, "--output=type=docker", "-t", "defined:1", *args).stderr
    text = engine.docker(
        "run", "--rm", "--network=none", "defined:1", "head", "-n", "99", "/one", "/two", "/three", "/four"
    )
    files = dict(re.findall(r"==> /(\w+) <==\n\s*(.*)\n", text.stdout))
    assert set(files) == {"one", "two", "three", "four"}
    assert files["two"] == files["four"]
    names = dict(re.findall(r"^#(\d+) \[(?!internal)(.* \d/\d\] (?!FROM).*)$", output, re.MULTILINE))
    assert len(set(names.values())) == STEPS, output
    cached = {names[number] for number in re.findall(r"^#(\d+) CACHED$", output, re.MULTILINE)}
    return files, {re.sub(r"\s+", " ", name)[:40] for name in set(names.values()) - cached}


def records(engine: Engine) -> dict[str, str]:
    """Return the cache's descriptions by id."""
    found = engine.api.get("/system/df", type="build-cache").json()["BuildCache"]
    return {record["ID"]: record["Description"] for record in found if record["Type"] == "regular"}


def test_pruned_source_stage_is_not_needed(engine: Engine, root: str) -> None:
    files, ran = build_files(engine, root)
    assert len(ran) == STEPS
    assert build_files(engine, root) == (files, set())
    behind = re.compile(r"\[(one|two) |urandom .* > /(one|two/two)$")
    # Records are removed before their parents.
    for id in [id for id, text in records(engine).items() if behind.search(text)][::-1]:
        engine.docker("buildx", "prune", "-af", "--filter", f"id={id}")
    assert len(records(engine)) == 4, records(engine)
    assert build_files(engine, root) == (files, set())
    assert len(records(engine)) == 4, records(engine)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_cache_of_the_last_layers_is_enough(
    engine: Engine, plain_registry: Registry, tmp_path: Path, root: str, kind: str
) -> None:
    ref = plain_registry.name(f"defined-{engine.kind}-{kind}")
    to, from_, more = {
        "inline": ("type=inline", f"type=registry,ref={ref}", ["-t", ref, "--push"]),
        "local": (f"type=local,dest={tmp_path / 'l'},mode=min", f"type=local,src={tmp_path / 'l'}", []),
    }[kind]
    files, _ = build_files(engine, root)
    build(engine, "--cache-to", to, *more, root)
    # Remove the image; the engine's own cache is pruned.
    engine.docker("rmi", "-f", "defined:1", *more[1:2])
    engine.docker("builder", "prune", "-af")
    assert not records(engine)
    assert build_files(engine, "--cache-from", from_, root) == (files, set())
    assert len(records(engine)) == 4, records(engine)
    # Imported steps are now cached as local ones.
    assert build_files(engine, root) == (files, set())


def test_changed_steps_and_their_dependents_run(engine: Engine, root: str) -> None:
    files, _ = build_files(engine, root)
    Path(root, "two").write_text("other\n")
    changed, ran = build_files(engine, root)
    assert {name for name in files if files[name] != changed[name]} == {"two", "four"}
    assert {re.sub(r" .*\] (\w+ (--\w+=\w+)?).*", r" \1", name) for name in ran} == {
        "two COPY ",
        "two RUN ",
        "stage-2 COPY --from=two",
        "stage-2 RUN --mount=type",
    }
    # Results of both states of the file are cached.
    Path(root, "two").write_text("2\n")
    assert build_files(engine, root) == (files, set())
    Path(root, "two").write_text("other\n")
    assert build_files(engine, root) == (changed, set())


def test_result_of_a_stage_without_cache_replaces_older_ones(engine: Engine, root: str) -> None:
    files, _ = build_files(engine, root)
    anew, ran = build_files(engine, "--no-cache-filter=one", root)
    assert {name for name in files if files[name] != anew[name]} == {"one", "three"}
    assert not any(name.startswith("two") for name in ran)
    assert build_files(engine, root) == (anew, set())
    # After a separate build of the source stage, its new result is used, although older results match by definition.
    build(engine, "--no-cache", "--target=two", root)
    after, ran = build_files(engine, root)
    assert {name for name in anew if anew[name] != after[name]} == {"two", "four"}
    assert not any(name.startswith(("one", "two")) for name in ran)
    assert build_files(engine, root) == (after, set())


def test_export_options_are_applied_or_refused_by_name(engine: Engine, tmp_path: Path) -> None:
    root = str(write_context(tmp_path / "c", {"Dockerfile": "FROM busybox\nENV A=1\n"}))
    for wish in ("image-manifest=false", "oci-mediatypes=false", "compression=zstd", "force-compression"):
        to = f"--cache-to=type=local,dest={tmp_path / 'l'},{wish if '=' in wish else wish + '=true'}"
        assert f"with {wish}" in build(engine, to, root, check=False).stderr
    nowhere = "--cache-to=type=registry,ref=127.0.0.1:1/none"
    assert build(engine, nowhere, root, check=False).status != 0
    build(engine, f"{nowhere},ignore-error=true", root)


def test_scratch_is_not_the_context(engine: Engine, tmp_path: Path) -> None:
    text = 'FROM busybox\nRUN --mount=type=bind,from=scratch,target=/m test -z "$(ls -A /m)"\n'
    root = write_context(tmp_path / "c", {"Dockerfile": text, "a": "a"})
    build(engine, str(root))
    (root / "Dockerfile").write_text("FROM busybox\nCOPY --from=scratch /a /a\n")
    assert build(engine, str(root), check=False).status != 0


SHARED = """FROM busybox AS build
ARG SALT
ENV A=1 B="x & <y>"
ARG C=3
ENV A=2
RUN echo $SALT > /salt
WORKDIR /src
COPY a b /src/
COPY --chown=3:4 --chmod=750 tree/ ./t/
COPY --chown=0 link /src/l2
RUN --mount=type=cache,target=/c touch /c/x; date +%N > /out
RUN --mount=type=secret,id=s --mount=type=cache,target=/d,id=q,sharing=locked ls /run/secrets > /names
USER 7
WORKDIR /w/z
RUN id > /tmp/id
FROM busybox AS other
RUN true
FROM build AS two
RUN --mount=type=bind,source=tree,target=/m --mount=type=bind,from=other,source=/bin,target=/n ls /m /n > /tmp/two
FROM busybox
RUN --network=none true
COPY --from=build /out /src/ /o/
ADD tree /tree
COPY --from=two /tmp/t* /
COPY . /all
RUN --mount=type=bind,source=tree/sub,target=/m,rw cat /m/y
"""


@pytest.mark.parametrize("way", ["from dockerd, inline", "to dockerd, inline", "to dockerd, registry"])
def test_caches_are_shared_with_buildkit(
    engine: Engine, oracle: Dockerd, plain_registry: Registry, tmp_path: Path, way: str
) -> None:
    files = {"Dockerfile": SHARED, ".dockerignore": "b2", "a": "a", "b": "", "tree/x": "x\n", "tree/sub/y": "y"}
    root = write_context(tmp_path / "c", {**files, "b2": "left out"})
    (root / "link").symlink_to("tree")
    (root / "tree" / "sub" / "up").symlink_to("../x")
    (root / "tree" / "x").chmod(0o4711)
    (tmp_path / "s").write_text("hidden")
    args = ["--secret", f"id=s,src={tmp_path / 's'}", "--build-arg", f"SALT={uuid.uuid4()}", str(root)]
    name = f"shared-{uuid.uuid4()}"
    with registry(netns=oracle.netns) as theirs:
        ours: tuple[Engine, Registry] = (engine, plain_registry)
        other: tuple[Engine, Registry] = (oracle, theirs)
        (maker, source), (user, target) = (other, ours) if way.startswith("from") else (ours, other)
        ref = source.name(name)
        to = ["--cache-to=type=inline", "-t", ref, "--push"]
        if way.endswith("registry"):
            to = [f"--cache-to=type=registry,ref={ref},mode=max"]
        try:
            build(maker, *to, *args)
            # The engines have separate loopbacks: copy the registry's content.
            shutil.copytree(source.root, target.root, dirs_exist_ok=True)
            output = build(user, f"--cache-from={target.name(name)}", *args).stderr
        finally:
            oracle.docker("rmi", "-f", ref, check=False)
    names = dict(re.findall(r"^#(\d+) \[(?!internal)(.* +\d+/\d+\] (?!FROM).*)$", output, re.MULTILINE))
    cached = {names[number] for number in re.findall(r"^#(\d+) CACHED$", output, re.MULTILINE) if number in names}
    assert set(names.values()) - cached == set(), output
    assert len(cached) == 17, output
