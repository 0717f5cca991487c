"""Build contexts, and results in a form that can be compared between two engines."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat_tests.support.api import Answer
from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine
from compat_tests.support.images import Node, layer

Files = Mapping[str, Node | bytes | str]


@dataclass(frozen=True, slots=True)
class Case:
    """A Dockerfile with its context and the build's query."""

    dockerfile: str
    files: Files = field(default_factory=dict)
    query: Mapping[str, object] = field(default_factory=dict)

    def context(self) -> bytes:
        """Return the tar that a client would send; directories come before their entries."""
        nodes: dict[str, Node | bytes | str] = {}
        for name, node in {"Dockerfile": self.dockerfile, **self.files}.items():
            parts = name.split("/")[:-1]
            for count in range(1, len(parts) + 1):
                nodes.setdefault("/".join(parts[:count]), Node(kind=tarfile.DIRTYPE, mode=0o755))
            nodes[name] = node
        return layer(nodes)


@dataclass(frozen=True, slots=True)
class Built:
    """The output of a classic build."""

    answer: Answer

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.answer.lines()

    @property
    def text(self) -> str:
        return "".join(str(message.get("stream", "")) for message in self.messages)

    @property
    def error(self) -> str:
        """Return the error's sentence, from the stream or the response."""
        if self.answer.status != 200:
            return self.answer.message
        return next((str(m["error"]) for m in self.messages if "error" in m), "")

    @property
    def image(self) -> str:
        """Return the id of the result."""
        found = [str(message["aux"]["ID"]) for message in self.messages if "aux" in message]
        assert found, self.text + self.error
        return found[-1]


def classic(engine: Engine, case: Case, *, body: bytes | None = None, **query: object) -> Built:
    """Run `POST /build` with the context as the body."""
    answer = engine.api.request(
        "POST",
        "/build",
        query={**case.query, **query},
        body=case.context() if body is None else body,
        headers={"Content-Type": "application/x-tar"},
        timeout=110,
    )
    return Built(answer)


def by_buildx(engine: Engine, case: Case, folder: Path, *args: str) -> Completed:
    """Run `docker build` of a case with buildx; entries of the query become flags."""
    folder.mkdir(parents=True, exist_ok=True)
    # By the client, who must be able to read the files.
    engine.run("tar", "-xp", "--no-same-owner", "-C", str(folder), input=case.context())
    flags = ["--progress=plain", *args]
    for key, value in case.query.items():
        if key == "dockerfile":
            flags += ["-f", str(folder / str(value))]
        elif key == "target":
            flags += ["--target", str(value)]
        elif key in ("buildargs", "labels"):
            flag = {"buildargs": "--build-arg", "labels": "--label"}[key]
            flags += [word for name, text in json.loads(str(value)).items() for word in (flag, f"{name}={text}")]
    return engine.docker("build", *flags, str(folder), env={"DOCKER_BUILDKIT": "1"}, check=False, timeout=110)


def plain(text: str) -> str:
    """Remove what differs between clients: additional words of newer ones, and a suffix that depends on a race between
    the client's two halves."""
    return text.replace("failed to build: ", "").replace("failed to run Build function: ", "failed to solve: ")


def sentence(done: Completed) -> str:
    """Return the end of a failed build's output, from the excerpt of the Dockerfile on."""
    start = re.search(r"^(\S+:\d+\n-----|ERROR:)", done.stderr, re.MULTILINE)
    text = done.stderr[start.start() :] if start else ""
    text = plain(re.sub(r"ref \S+::\w+", "ref R", text))
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


CONFIG = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
)


def config(engine: Engine, image: str) -> dict[str, Any]:
    """Return the configuration for containers of the image. Empty and absent are equal here; image tests compare
    them."""
    inspected = engine.api.get(f"/images/{image}/json").json()
    found = {key: inspected["Config"].get(key) or None for key in CONFIG}
    return {**found, "Author": inspected.get("Author") or "", "Os": inspected["Os"]}


def history(engine: Engine, image: str) -> list[str]:
    """Return the instructions in the history, newest first, without the checksums of copied files."""
    lines = engine.api.get(f"/images/{image}/history").json()
    return [str(line["CreatedBy"]) for line in lines]


def tree(engine: Engine, image: str) -> dict[str, str]:
    """Return every path of the image's root with type, mode, owner and content, without busybox's own files and
    times."""
    created = engine.api.post("/containers/create", {"Image": image, "Cmd": ["true"], "Entrypoint": []})
    assert created.status == 201, created.body
    path = f"/containers/{created.json()['Id']}"
    try:
        exported = engine.api.get(f"{path}/export")
        assert exported.status == 200, exported.body
    finally:
        engine.api.delete(path, force=1, v=1)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(exported.body)) as archive:
        for member in archive:
            name = member.name.strip("/").removeprefix("./")
            if not name or name in MADE_AT_START or (name.startswith("bin/") and name not in found):
                continue
            data = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(data.read()).hexdigest()[:16] if data else member.linkname
            found[name] = f"{member.type.decode()} {member.mode:o} {member.uid}:{member.gid} {content}"
    return found


# Engines add these to every container, each with different content.
MADE_AT_START = {"dev", "proc", "sys", ".dockerenv", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
MADE_AT_START |= {f"dev/{name}" for name in ("console", "pts", "shm")}


def facts(engine: Engine, image: str) -> dict[str, Any]:
    """Return everything about an image that is compared."""
    return {"config": config(engine, image), "tree": tree(engine, image), "history": history(engine, image)}


def run(engine: Engine, image: str, *command: str) -> str:
    """Return the output of a container of the image."""
    return engine.docker("run", "--rm", image, *command).stdout


def dumped(value: object) -> str:
    """Format a value so that the difference of a failed comparison is readable."""
    return json.dumps(value, indent=1, sort_keys=True)
