"""The commands of deploy/README.md for a lab, as they stand there, by an administrator and by a new user.

Paths of the installation are replaced by those of the test's engine. The page's socket is the engine's flag. What needs
systemd or the internet is left out by name.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compat_tests.support.daemons import run_program
from compat_tests.support.users import Lab, lab

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "deploy/README.md").read_text()
POLICY = (ROOT / "deploy/policy.toml").read_text()
SECTIONS = ("A lab of three people in five minutes", "A socket for a CI job", "GPUs")
#: Commands that the test does in another way.
LEFT_OUT = ("systemctl edit wharf", "systemctl restart wharf", "docker pull busybox")


@dataclass(slots=True)
class Command:
    """A command of the page, and the output that the page shows."""

    root: bool
    text: str
    shown: list[str] = field(default_factory=list)


def commands(section: str) -> list[Command]:
    """Return the commands in the section's console blocks."""
    text = re.search(rf"^### {re.escape(section)}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert text is not None, f"no section {section!r}"
    found: list[Command] = []
    for block in re.findall(r"```console\n(.*?)```", text[1], re.DOTALL):
        document = ""  # the last line of a here-document
        for line in block.splitlines():
            if document:
                found[-1].text += f"\n{line}"
                document = "" if line == document else document
            elif line.startswith(("# ", "$ ")):
                found.append(Command(line.startswith("#"), line[2:]))
                here = re.search(r"<<'(\w+)'", line)
                document = here[1] if here else ""
            else:
                found[-1].shown.append(line)
    return found


@pytest.fixture(scope="module")
def page_lab() -> Iterator[Lab]:
    """An engine with the sample of the policy, whose users' socket has the flag that the page shows."""
    flag = re.search(r"^ExecStart=/usr/sbin/wharfd -H fd:// -H unix:///run/wharf/users\.sock(\S*)$", PAGE, re.MULTILINE)
    assert flag is not None
    assert flag[1] == "?mode=0666"  # the flag of ``lab``
    policy = POLICY.replace("alice =", "{alice} =").replace("bob =", "{bob} =")
    with lab("page", policy.replace("/var/log/wharf/", "/var/tmp/wharf-page-"), ("alice", "bob")) as made:
        yield made
    for path in Path("/var/tmp").glob("wharf-page-audit.log*"):
        path.unlink()


def test_the_lab_of_the_page(page_lab: Lab) -> None:
    alice, engine, root = page_lab["alice"], page_lab.engine, page_lab.engine.resources.root
    programs = alice.home / "bin"
    programs.mkdir()
    wharf = programs / "wharf"
    wharf.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1 exec {sys.executable} -m server.cli "$@"\n'
    )
    wharf.chmod(0o755)
    places = {
        "/run/wharf/users.sock": str(alice.socket),
        "/run/wharf/docker.sock": str(engine.resources.socket),
        "/etc/wharf/": f"{root}/etc/",
        "/etc/cdi": str(engine.cdi),
    }

    def placed(text: str) -> str:
        for page, here in places.items():
            text = text.replace(page, here)
        return text

    done: list[str] = []
    for section in SECTIONS:
        for by_root in (True, False):
            own = [each for each in commands(section) if each.root is by_root and not each.text.startswith(LEFT_OUT)]
            # One shell, in which variables and exports persist. The mark ends each command's output.
            script = "\n".join(f"{placed(each.text)}\necho @@$?" for each in own)
            environ = {"PATH": f"{programs}:{os.environ['PATH']}", "LANG": "C.UTF-8", "HOME": str(alice.home)}
            if not by_root:
                # The tests' Python may be readable by root only.
                ids = f"--reuid {alice.credentials.uid} --regid {alice.credentials.gid} --clear-groups"
                readable = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
                argv = ["setpriv", *ids.split(), *readable.split(), "bash", "-c", f"cd; exec 2>&1\n{script}"]
                environ["DOCKER_HOST"] = alice.host if section != SECTIONS[0] else ""
            else:
                argv = ["bash", "-c", f"exec 2>&1\n{script}"]
                environ |= {"HOME": str(root), "DOCKER_HOST": engine.host if section != SECTIONS[0] else ""}
            outputs = re.findall(r"(.*?)@@(\d+)\n", run_program(argv, env=environ, cwd=ROOT).stdout, re.DOTALL)
            assert len(outputs) == len(own)
            for command, (output, status) in zip(own, outputs, strict=True):
                fails = any("Error" in line for line in command.shown)
                assert (status != "0") is fails, f"{command.text}\n{output}"
                for line in command.shown:
                    assert placed(line) in output, f"{command.text}\n{output}"
            done += [each.text for each in own]
    assert shutil.which("wharf", path=str(programs))
    assert {text.split()[0] for text in done} >= {"docker", "wharf", "export", "install", "mkdir"}
    assert engine.docker("ps", "-aq", "--filter", "name=db").stdout == ""
