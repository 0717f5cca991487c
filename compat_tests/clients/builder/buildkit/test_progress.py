"""The output of builds: on a terminal, plain, JSON, quiet; and the classic builder's lines."""

from __future__ import annotations

import os
import re
import select
import time
from pathlib import Path

import pytest

from compat_tests.clients.builder import builds
from compat_tests.clients.builder.buildx import needs_buildx, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.streams import DEADLINE, Terminal

pytestmark = needs_buildx

STEPS = (
    "FROM busybox AS a\nRUN sleep 1; echo fir''st\nFROM busybox\nCOPY --from=a /etc/passwd /p\nCOPY f /f\n"
    "RUN echo wo''rds; {}\n"
)
PROCESS = "process \"/bin/sh -c echo wo''rds; exit 7\" did not complete successfully: exit code: 7"
EXCERPT = """\
Dockerfile:6
--------------------
   4 |     COPY --from=a /etc/passwd /p
   5 |     COPY f /f
   6 | >>> RUN echo wo''rds; exit 7
   7 |     
--------------------
"""  # noqa: W291


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A context with a ``Dockerfile`` whose last step fails, and a ``Good`` one."""
    files = {"Dockerfile": STEPS.format("exit 7"), "Good": STEPS.format("true"), "f": "f"}
    return str(write_context(tmp_path / "c", files))


def on_terminal(engine: Engine, *args: str) -> tuple[int, str]:
    """Return the CLI's exit code, and its output on a terminal of 40 lines."""
    with Terminal(engine, *args, rows=40, columns=120) as terminal:
        display, end = b"", time.monotonic() + 2 * DEADLINE
        while time.monotonic() < end:
            if not select.select([terminal.master], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal.master, 65536)
            except OSError:  # the other side is closed
                break
            display += data
        return terminal.process.wait(DEADLINE), display.decode().replace("\r\n", "\n")


def last_frame(display: str) -> dict[str, float]:
    """Return the final lines of the display with the seconds of each."""
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", display[display.rindex("[+] Building") :]).partition("------")[0]
    assert re.match(r"\[\+\] Building \d+\.\ds \((\d+)/\1\) FINISHED +docker:default\n", frame), frame
    lines = re.findall(r"^ => (.*?) +(\d+\.\d)s$", frame, re.MULTILINE)
    return {name: float(seconds) for name, seconds in lines}


def test_on_a_terminal(engine: Engine, root: str) -> None:
    status, output = on_terminal(engine, "build", "--no-cache", "-t", "progress:tty", "-f", f"{root}/Good", root)
    assert status == 0
    assert output.count("[+] Building") > 1
    frame = last_frame(output)
    assert frame.pop("[a 2/2] RUN sleep 1; echo fir''st") >= 1
    base = next(
        name for name in frame if re.match(r"\[(a 1/2|stage-1 1/4)\] FROM docker\.io/library/busybox:latest", name)
    )
    image = next(name for name in frame if name.startswith("=> writing image sha256:"))
    transfers = {name for name in frame if name.startswith("=> transferring ")}
    assert {name.split(":")[0] for name in transfers} == {"=> transferring dockerfile", "=> transferring context"}
    assert frame.keys() - transfers == {
        "[internal] load build definition from Good",
        "[internal] load metadata for docker.io/library/busybox:latest",
        "[internal] load .dockerignore",
        "[internal] load build context",
        base,
        "[stage-1 2/4] COPY --from=a /etc/passwd /p",
        "[stage-1 3/4] COPY f /f",
        "[stage-1 4/4] RUN echo wo''rds; true",
        "exporting to image",
        "=> exporting layers",
        image,
        "=> naming to docker.io/library/progress:tty",
    }
    # again: cached steps are marked
    status, output = on_terminal(engine, "build", "-t", "progress:tty", "-f", f"{root}/Good", root)
    assert status == 0
    assert {"CACHED [stage-1 3/4] COPY f /f", "CACHED [a 2/2] RUN sleep 1; echo fir''st"} <= last_frame(output).keys()


def test_a_failure_on_a_terminal(engine: Engine, root: str) -> None:
    status, output = on_terminal(engine, "build", "--no-cache", root)
    assert status == 1
    frame = last_frame(output)
    assert "ERROR [stage-1 4/4] RUN echo wo''rds; exit 7" in frame
    assert not [name for name in frame if "exporting" in name]
    # after the display: the end of the step's output, the excerpt, the sentence
    report = output[output.rindex("\x1b[?25h") + len("\x1b[?25h") :]
    report = re.sub(r"^\d+\.\d+ ", "T ", report, flags=re.MULTILINE)
    head = "------\n > [stage-1 4/4] RUN echo wo''rds; exit 7:\nT words\n------\n"
    assert builds.plain(report).rstrip() == f"{head}{EXCERPT}ERROR: failed to solve: {PROCESS}"


def test_quiet_build_prints_the_id_or_the_error(engine: Engine, root: str) -> None:
    """Only the id of a successful build, the excerpt of a failed one."""
    for flags in (["-q"], ["--progress=quiet"]):
        good = engine.docker("buildx", "build", *flags, "-t", "progress:quiet", "-f", f"{root}/Good", root, timeout=110)
        output = engine.docker("image", "inspect", "-f", "{{.Id}}", "progress:quiet").stdout
        assert good.stdout.strip() == output.strip()
        assert good.stderr == ""
        bad = engine.docker("buildx", "build", *flags, root, check=False, timeout=110)
        assert (bad.status, bad.stdout) == (1, "")
        assert builds.plain(bad.stderr).rstrip() == f"{EXCERPT}ERROR: failed to solve: {PROCESS}"


def test_classic_builder_with_and_without_quiet(engine: Engine, root: str) -> None:
    """A quiet build that fails prints its buffered output, as dockerd's does."""
    classic = {"DOCKER_BUILDKIT": "0"}
    good = engine.docker("build", "-q", "-f", f"{root}/Good", "-t", "progress:c", root, env=classic, timeout=110)
    assert good.stdout == engine.docker("image", "inspect", "-f", "{{.Id}}", "progress:c").stdout
    aloud, quiet = (
        engine.docker("build", *flags, "--no-cache", root, env=classic, check=False, timeout=110)
        for flags in ([], ["-q"])
    )
    for done, lines in ((aloud, aloud.stdout), (quiet, quiet.stderr)):
        assert done.status == 7
        assert done.stderr.rstrip().endswith(
            "The command '/bin/sh -c echo wo''rds; exit 7' returned a non-zero code: 7"
        )
        lines = lines[lines.index("Step") :]
        assert re.sub(r"\b[0-9a-f]{12}\b", "ID", lines).partition("The command")[0] == (
            "Step 1/6 : FROM busybox AS a\n ---> ID\n"
            "Step 2/6 : RUN sleep 1; echo fir''st\n ---> Running in ID\nfirst\n"
            " ---> Removed intermediate container ID\n ---> ID\n"
            "Step 3/6 : FROM busybox\n ---> ID\n"
            "Step 4/6 : COPY --from=a /etc/passwd /p\n ---> ID\n"
            "Step 5/6 : COPY f /f\n ---> ID\n"
            "Step 6/6 : RUN echo wo''rds; exit 7\n ---> Running in ID\nwords\n"
        )
    assert quiet.stdout == ""
