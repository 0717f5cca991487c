"""Many builds at once: bake files with all their features, local and remote, and compose's builds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, needs_git, run_output, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.servers.registry import registry
from compat_tests.support.servers.web import repository, serving

pytestmark = needs_buildx
needs_compose = pytest.mark.skipif(
    not os.path.exists("/usr/libexec/docker/cli-plugins/docker-compose"), reason="needs compose"
)

BAKE = """
variable "WHO" { default = "nobody" }
function "shout" {
  params = [text]
  result = upper("${text}!")
}
group "default" { targets = ["each", "whole"] }
target "base" {
  args = { WHO = shout(WHO) }
  labels = { "made.by" = "bake" }
}
target "each" {
  name = "each-${item}"
  inherits = ["base"]
  matrix = { item = ["one", "two"] }
  args = { ITEM = item }
  target = "each"
  tags = ["baked:${item}"]
}
target "whole" {
  inherits = ["base"]
  contexts = { one = "target:each-one", two = "target:each-two", shared = "shared" }
  target = "whole"
  tags = ["baked:whole", notequal("", WHO) ? "baked:for-${WHO}" : ""]
}
target "unasked" { dockerfile-inline = "FROM busybox\\nRUN exit 1\\n" }
"""
BAKED = """
FROM busybox AS each
ARG ITEM
ARG WHO
RUN echo "$ITEM for $WHO" > /it
FROM busybox AS whole
COPY --from=one /it /one
COPY --from=two /it /two
COPY --from=shared f /f
"""


def bake(engine: Engine, folder: Path | None, *args: str, **env: str) -> str:
    """Run bake and return its output."""
    words = ("buildx", "bake", "--progress=plain", *args)
    return engine.docker(*words, cwd=folder, env=env, timeout=110).stdout


def test_a_bake_file(engine: Engine, tmp_path: Path) -> None:
    """Variables, functions, a matrix, inheritance, targets as contexts, and overrides on the command line."""
    root = write_context(tmp_path, {"docker-bake.hcl": BAKE, "Dockerfile": BAKED, "shared/f": "shared\n"})
    printed: dict[str, Any] = json.loads(bake(engine, root, "--print", WHO="you"))["target"]
    assert set(printed) == {"each-one", "each-two", "whole"}
    assert printed["each-two"]["args"] == {"ITEM": "two", "WHO": "YOU!"}
    bake(engine, root, WHO="you")
    show = ("run", "--rm", "--network", "none")
    for name in ("whole", "for-you"):
        words = engine.docker(*show, f"baked:{name}", "cat", "/one", "/two", "/f").stdout
        assert words == "one for YOU!\ntwo for YOU!\nshared\n"
    labels = json.loads(engine.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "baked:one").stdout)
    assert labels == {"made.by": "bake"}
    out = tmp_path / "out"
    meta = tmp_path / "meta.json"
    args = ("--set", "each-*.args.ITEM=set", "--set", f"each-one.output=type=local,dest={out}")
    bake(engine, root, *args, "--metadata-file", str(meta), "each-one", "each-two")
    assert (out / "it").read_text() == "set for NOBODY!\n"
    assert engine.docker(*show, "baked:two", "cat", "/it").stdout == "set for NOBODY!\n"
    metadata = json.loads(meta.read_text())
    image = engine.docker("image", "inspect", "-f", "{{.Id}}", "baked:two").stdout.strip()
    assert metadata["each-two"]["containerimage.digest"] == image


@needs_git
def test_remote_definitions(engine: Engine, tmp_path: Path) -> None:
    """Bake files of a repository, of a directory in it, at a URL; a Dockerfile by URL with local files."""
    files = {
        "docker-bake.hcl": 'target "default" {\n dockerfile = "D"\n tags = ["far:1"]\n}\n',
        "D": "FROM busybox\nCOPY f /f\n",
        "f": "far\n",
        "sub/docker-bake.hcl": 'target "default" {\n dockerfile = "D"\n tags = ["far:2"]\n}\n',
        "sub/D": "FROM busybox\nLABEL from=sub\n",
    }
    repository(tmp_path, "far", files)
    inline = 'target "default" {\n dockerfile-inline = "FROM busybox\\nRUN echo inline > /f\\n"\n tags = ["far:3"]\n}\n'
    (tmp_path / "file.hcl").write_text(inline)
    (tmp_path / "Far $ file").write_text("FROM busybox\nCOPY f /f\n")
    near = write_context(tmp_path / "near", {"f": "near\n"})
    with serving(tmp_path) as url:
        assert '"far:1"' in bake(engine, near, f"{url}/far.git", "--print")
        bake(engine, near, f"{url}/far.git")
        assert run_output(engine, "far:1", "cat", "/f") == "far\n"
        bake(engine, near, f"{url}/far.git#main:sub")
        assert engine.docker("image", "inspect", "-f", "{{.Config.Labels.from}}", "far:2").stdout == "sub\n"
        bake(engine, near, f"{url}/file.hcl")
        assert run_output(engine, "far:3", "cat", "/f") == "inline\n"
        for _ in range(2):  # the second time from the cache
            build(engine, "-f", f"{url}/Far%20%24%20file", "-t", "far:4", str(near))
        assert run_output(engine, "far:4", "cat", "/f") == "near\n"
        missing = build(engine, "-f", f"{url}/none", str(near), check=False)
        assert missing.status != 0
        assert "status 404" in missing.stderr


COMPOSE = """
services:
  web:
    image: composed:web
    build:
      context: .
      target: chosen
      additional_contexts: { other: ./other, image: "docker-image://busybox" }
      args: { WHO: composed }
      labels: { made.by: compose }
      secrets: [token]
      ssh: [default]
      cache_from: ["type=registry,ref=REGISTRY/cache:1"]
      cache_to: ["type=registry,ref=REGISTRY/cache:1,mode=max"]
      platforms: [linux/amd64]
      no_cache: NO_CACHE
      extra_hosts: ["made.up=10.1.2.3"]
      tags: ["composed:also"]
  inline:
    image: composed:inline
    build: { dockerfile_inline: "FROM busybox\\nRUN echo inline > /f\\n" }
secrets:
  token: { file: ./token }
"""
COMPOSED = """
FROM busybox AS unused
RUN exit 1
FROM busybox AS chosen
ARG WHO
COPY --from=other f /other
COPY --from=image /etc/passwd /passwd
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && echo yes > /agent
RUN grep made.up /etc/hosts > /hosts && cat /proc/sys/kernel/random/uuid > /uuid
RUN echo "$WHO" > /who
FROM busybox
RUN exit 2
"""


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[str]:
    """Run an ssh-agent; yield its socket."""
    path = folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it prints its address once it listens
        try:
            yield str(path)
        finally:
            process.kill()


@needs_compose
@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")
def test_build_options_of_compose(engine: Engine, tmp_path: Path) -> None:
    with registry() as store, agent(tmp_path) as socket:
        text = COMPOSE.replace("REGISTRY", store.address)
        files = {"compose.yaml": text.replace("NO_CACHE", "false"), "Dockerfile": COMPOSED, "other/f": "other\n"}
        root = write_context(tmp_path / "c", {**files, "token": "secret token"})
        words = ("compose", "-p", "composed-builds", "build")
        env = {"SSH_AUTH_SOCK": socket}
        engine.docker(*words, cwd=root, env=env, timeout=110)
        names = ("/other", "/size", "/agent", "/who")
        assert run_output(engine, "composed:web", "cat", *names).split() == ["other", "12", "yes", "composed"]
        assert run_output(engine, "composed:inline", "cat", "/f") == "inline\n"
        assert re.match(r"10\.1\.2\.3\s+made\.up\n", run_output(engine, "composed:web", "cat", "/hosts"))
        labels = json.loads(engine.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "composed:also").stdout)
        assert labels["made.by"] == "compose"
        first = run_output(engine, "composed:web", "cat", "/uuid")
        # from the cache in the registry, without local images
        engine.docker("rmi", "-f", "composed:web", "composed:also")
        engine.docker("builder", "prune", "-af")
        engine.docker(*words, "web", cwd=root, env=env, timeout=110)
        assert run_output(engine, "composed:web", "cat", "/uuid") == first
        engine.docker(*words, "--build-arg", "WHO=given", "--no-cache", "web", cwd=root, env=env, timeout=110)
        assert run_output(engine, "composed:web", "cat", "/who") == "given\n"
        assert run_output(engine, "composed:web", "cat", "/uuid") != first
