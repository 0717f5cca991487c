"""Users of an engine with a policy: each logs in with the own link or password, and sees the own objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from compat_tests.support.browser import WHARF, Visitor, open_tab
from compat_tests.support.host.ports import free_ports
from compat_tests.support.users import Lab, lab

POLICY = """
published_images = ["docker.io/library/busybox:*"]
[users]
"{alice}" = "member"
"{bob}" = "member"
[roles.member]
containers = 5
"""
SERVICE = Path("/etc/pam.d/wharf")


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_ports()}"


@pytest.fixture(scope="module")
def shared(address: str) -> Iterator[Lab]:
    with lab("ui-users", POLICY, ("alice", "bob"), "--ui", address) as found:
        yield found


@pytest.fixture
def stranger(browser: Browser, shared: Lab, address: str) -> Iterator[Visitor]:
    found = open_tab(browser, shared.engine, f"http://{address}")
    yield found
    found.context.close()


@pytest.fixture
def service() -> Iterator[None]:
    """PAM's service, if the host has none."""
    if SERVICE.exists():
        yield
        return
    SERVICE.write_text("auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
    try:
        yield
    finally:
        SERVICE.unlink()


def link_of(shared: Lab, host: str) -> str:
    """Return a link with the identity of root on this socket."""
    return shared.engine.run(*WHARF, "-H", host, "ui").stdout.strip()


def test_a_password_leads_to_the_own_objects(stranger: Visitor, shared: Lab, service: None) -> None:
    alice, bob = shared["alice"], shared["bob"]
    alice.docker("run", "-d", "--name", "hers", "busybox", "sleep", "600")
    bob.docker("run", "-d", "--name", "his", "busybox", "sleep", "600")
    text = f"{alice.name}:right-Password7"
    subprocess.run(["chpasswd"], input=text, text=True, check=True, timeout=60)
    stranger.tab.goto(stranger.url)
    for password in ("wrong", "right-Password7"):
        stranger.tab.get_by_label("User").fill(alice.name)
        stranger.tab.get_by_label("Password").fill(password)
        stranger.press("Log in")
        if password == "wrong":
            expect(stranger.tab.get_by_role("status")).to_contain_text("password is wrong")
    expect(stranger.tab.get_by_role("link", name="hers")).to_be_visible()
    expect(stranger.tab.get_by_role("link", name="his")).to_have_count(0)
    expect(stranger.tab.get_by_text(alice.name)).to_be_visible()
    stranger.press("Kill hers")
    stranger.confirm("Kill")
    expect(stranger.tab.get_by_role("row").filter(has_text="hers")).to_contain_text("exited")
    alice.docker("rm", "hers")
    bob.docker("rm", "-f", "his")


def test_a_user_without_a_role_is_refused(stranger: Visitor, service: None) -> None:
    stranger.tab.goto(stranger.url)
    stranger.tab.get_by_label("User").fill("daemon")
    stranger.tab.get_by_label("Password").fill("x")
    stranger.press("Log in")
    expect(stranger.tab.get_by_role("status")).to_contain_text("password is wrong")


def test_an_administrator_sees_everybody(stranger: Visitor, shared: Lab) -> None:
    shared["bob"].docker("create", "--name", "seen", "busybox", "true")
    stranger.tab.goto(link_of(shared, shared.engine.host))
    expect(stranger.tab.get_by_role("link", name="seen")).to_be_visible()
    stranger.show("machine")
    expect(stranger.tab.get_by_role("heading", name="Users")).to_be_visible()
    expect(stranger.tab.get_by_role("row").filter(has_text=shared["bob"].name)).to_contain_text("member")
    shared["bob"].docker("rm", "seen")


def test_a_reload_of_the_policy_ends_the_sessions(stranger: Visitor, shared: Lab) -> None:
    stranger.tab.goto(link_of(shared, shared.engine.host))
    expect(stranger.tab.get_by_role("heading", level=1)).to_be_visible()
    os.kill(shared.engine.daemon.pid, 1)
    expect(stranger.tab).to_have_url(f"{stranger.url}/login")
