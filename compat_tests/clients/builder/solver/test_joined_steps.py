"""Builds that join the same running step: each shows the step's output from the beginning, and its own lines."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.clients.builder.builds import Case, classic
from compat_tests.clients.builder.buildx import needs_buildx, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import pids_of
from compat_tests.support.polling import until

pytestmark = needs_buildx

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Step:
    """A step that prints a random id, waits until :meth:`end`, prints again and fails."""

    def __init__(self) -> None:
        self.marker = str(10**8 + uuid.uuid4().int % 10**8)
        self.line = f"RUN cat /proc/sys/kernel/random/uuid; sleep {self.marker}; echo at the e''nd; exit 7"

    def end(self) -> None:
        for pid in pids_of("sleep", self.marker):
            os.kill(pid, signal.SIGKILL)


class Client:
    """A build by the CLI, with its output so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.text = process, ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as shown:
            for line in shown:
                self.text += line.decode()

    def shows(self, text: str) -> bool:
        return until(lambda: text in self.text, seconds=60)

    @property
    def id(self) -> str:
        """Return the random id, which is shown while the step runs."""
        assert until(lambda: UUID.search(self.text) is not None, seconds=60), self.text
        found = UUID.search(self.text)
        assert found is not None
        return found[0]

    def complete_output(self) -> str:
        """Return the complete output after the build's end."""
        self.process.wait(60)
        self._reader.join()
        return self.text

    def kill(self) -> None:
        for pid in [*pids_of("docker-buildx", str(self.process.args[-1])), self.process.pid]:  # type: ignore[index]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def step() -> Iterator[Step]:
    step = Step()
    yield step
    step.end()


def start(engine: Engine, *args: str, cwd: Path | None = None) -> Client:
    return Client(engine.popen(*args, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=cwd))


def test_second_build_joins_a_running_step(engine: Engine, tmp_path: Path, step: Step) -> None:
    one = write_context(tmp_path / "one", {"Dockerfile": f"FROM busybox\n{step.line}\n"})
    two = write_context(tmp_path / "two", {"Dockerfile": f"FROM busybox\n# a comment\n\n{step.line}\n"})
    first = start(engine, "buildx", "build", "--progress=plain", str(one))
    try:
        id = first.id
        second = start(engine, "buildx", "build", "--progress=plain", str(two))
        assert second.id == id, "the step ran twice"
    finally:
        step.end()
    for client, line in ((first, 2), (second, 4)):
        output = client.complete_output()
        assert client.process.returncode == 1
        # Once as output, once in the excerpt.
        assert output.count(id) == output.count("at the end") == 2, output
        assert f"Dockerfile:{line}\n" in output
        assert f"{line:4} | >>> RUN cat" in output
        assert output.count("ERROR: process") == 1
    times = [re.findall(r"^#\d+ (\d+\.\d+) at the end$", client.text, re.MULTILINE) for client in (first, second)]
    assert times[0] == times[1], "the times of the second are not those of the step"


def test_step_continues_without_its_first_client(engine: Engine, tmp_path: Path, step: Step) -> None:
    one = write_context(tmp_path / "one", {"Dockerfile": f"FROM busybox\n{step.line}\n"})
    two = write_context(tmp_path / "two", {"Dockerfile": f"FROM busybox\n{step.line}\n"})
    first = start(engine, "buildx", "build", "--progress=plain", str(one))
    try:
        id = first.id
        second = start(engine, "buildx", "build", "--progress=plain", str(two))
        assert second.id == id
        first.kill()
        first.complete_output()
    finally:
        step.end()
    assert "at the end" in second.complete_output()


def test_the_files_of_the_first_client_stay_as_they_are(engine: Engine, tmp_path: Path, step: Step) -> None:
    """A joined step uses the context of the build that started it, which may end before the step."""
    line = f"RUN --mount=type=bind,target=/c cat /proc/sys/kernel/random/uuid; sleep {step.marker}; cat /c/f; exit 7"
    files = {"Dockerfile": f"FROM busybox\n{line}\n", "f": "old content\n"}
    one, two = write_context(tmp_path / "one", files), write_context(tmp_path / "two", files)
    other = write_context(tmp_path / "three", {"Dockerfile": "FROM scratch\nCOPY f /\n"}) / "Dockerfile"
    first = start(engine, "buildx", "build", "--progress=plain", str(one))
    try:
        id = first.id
        second = start(engine, "buildx", "build", "--progress=plain", str(two))
        assert second.id == id, "the step ran twice"
        first.kill()
        first.complete_output()
        (one / "f").write_text("new content\n")
        third = start(engine, "buildx", "build", "--progress=plain", "--file", str(other), str(one))
        output = third.complete_output()
        assert third.process.returncode == 0, output
    finally:
        step.end()
    output = second.complete_output()
    assert "old content" in output, output
    assert "new content" not in output


def test_targets_of_one_bake(engine: Engine, tmp_path: Path, step: Step) -> None:
    stages = f"FROM busybox AS base\n{step.line}\nFROM base AS one\nENV A=1\nFROM base AS two\nENV A=2\n"
    targets = 'target "one" {\n target = "one"\n}\ntarget "two" {\n target = "two"\n}\n'
    write_context(
        tmp_path,
        {"Dockerfile": stages, "docker-bake.hcl": f'group "default" {{ targets = ["one", "two"] }}\n{targets}'},
    )
    client = start(engine, "buildx", "bake", "--progress=plain", cwd=tmp_path)
    try:
        assert until(lambda: len(UUID.findall(client.text)) == 2, seconds=60), client.text
    finally:
        step.end()
    output = client.complete_output()
    assert len(set(UUID.findall(output))) == 1
    assert re.search(
        r" > \[.*base 2/2\] RUN[^\n]*:\n\d+\.\d+ [0-9a-f-]{36}\n(.* Killed\n)?\d+\.\d+ at the end\n", output
    ), output


def test_classic_build_joins_a_running_step(engine: Engine, tmp_path: Path, step: Step) -> None:
    root = write_context(tmp_path, {"Dockerfile": f"FROM busybox\n{step.line}\n"})
    first = start(engine, "buildx", "build", "--progress=plain", str(root))
    try:
        id = first.id
        second = Client(
            subprocess.Popen(
                ["docker", "build", str(root)],
                env=engine.environment(DOCKER_BUILDKIT="0"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        assert second.id == id
    finally:
        step.end()
    first.complete_output()
    output = second.complete_output()
    assert re.search(
        rf" ---> Running in [0-9a-f]{{12}}\n{id}\n(.*\n)?.*at the end\nThe command .* non-zero code: 7\n", output
    ), output


def test_long_output_is_clipped_as_buildkit_does(engine: Engine, tmp_path: Path) -> None:
    word = f"{0:055}6789"
    line = f"RUN yes {word} | head -c 3000000; echo; echo the e''nd; echo err''or >&2; exit 3"
    root = write_context(tmp_path, {"Dockerfile": f"FROM busybox\n{line}\n"})
    output = start(engine, "buildx", "build", "--progress=plain", str(root)).complete_output()
    assert "[output clipped, log limit 200KiB/s reached]" in output
    assert " the end\n" in output
    assert " error\n" in output
    # The limit of one second, or of several on a slow machine, and the tail of 256 KiB.
    assert output.count("6789\n") < 45_000
    case = Case(f"FROM busybox\n{line}\n")
    assert classic(engine, case).text.count("6789\n") == 50_000
