"""Projects, images, disk and machine; and all screens for people who can't see them, or have a small window."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from compat_tests.clients.ui.conftest import Site
from compat_tests.support.browser import PHONE, WIDE, Visitor, open_tab
from compat_tests.support.engines import Wharf
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry

PROJECT = """\
name: shop
services:
  web: {image: busybox, command: "sh -c 'while true; do echo from web; sleep 0.2; done'", stop_grace_period: 0s}
  db: {image: busybox, command: "sh -c 'echo from db; sleep 600'", volumes: ["data:/data"], stop_grace_period: 0s}
volumes: {data: {}}
"""


@pytest.fixture
def project(served: Wharf, tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT)
    served.docker("compose", "-f", str(file), "up", "-d")
    yield file
    served.docker("compose", "-f", str(file), "down", "-v", check=False)


def test_a_project_is_followed_and_driven(visitor: Visitor, served: Wharf, project: Path) -> None:
    visitor.show("projects")
    visitor.tab.get_by_role("link").filter(has_text="shop").click()
    expect(visitor.tab.locator(".line").filter(has_text="from db")).to_be_visible()
    expect(visitor.tab.locator(".line").filter(has_text="from web").first).to_be_visible()
    visitor.press("restart")
    visitor.confirm("Restart")
    expect(visitor.tab.locator(".output")).to_contain_text("Started")
    expect(visitor.tab.locator(".toast.good")).to_contain_text("compose restart: done")
    visitor.press("down")
    visitor.confirm("Down")
    expect(visitor.tab.get_by_text("The project has no containers")).to_be_visible()
    assert until(lambda: served.client.containers.list(all=True) == [])


def test_a_command_of_compose_ends_with_its_page(visitor: Visitor, served: Wharf, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT.replace("stop_grace_period: 0s", "stop_grace_period: 60s, stop_signal: SIGCONT"))
    served.docker("compose", "-f", str(file), "up", "-d")
    visitor.show("projects/shop")
    visitor.press("down")
    visitor.confirm("Down")
    expect(visitor.tab.locator(".output")).to_contain_text("Stopping")
    visitor.tab.goto("about:blank")
    children = Path(f"/proc/{served.daemon.pid}/task/{served.daemon.pid}/children")
    assert until(lambda: all("compose" not in _command(pid) for pid in children.read_text().split()))


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_an_image_is_pulled_used_and_removed(visitor: Visitor, served: Wharf, plain_registry: Registry) -> None:
    name = f"{plain_registry.address}/team/tool:1"
    served.docker("tag", "busybox", name)
    served.docker("push", "-q", name)
    served.docker("rmi", name)
    visitor.show("images")
    visitor.press("Pull …")
    visitor.tab.get_by_label("Image", exact=True).fill(name)
    visitor.confirm("Pull")
    expect(visitor.tab.locator(".toast.good")).to_contain_text(name)
    expect(visitor.tab.get_by_role("button", name="busybox:latest", exact=True)).to_be_visible()
    visitor.press("Pull …")
    visitor.tab.get_by_label("Image", exact=True).fill(f"{plain_registry.address}/team/missing:1")
    visitor.confirm("Pull")
    expect(visitor.tab.locator(".toast.bad")).to_contain_text("not found")
    visitor.complaints.clear()


def test_a_prune_shows_before_what_it_removes(visitor: Visitor, served: Wharf, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=5\n")
    served.docker("build", "-q", "-t", "pruned:1", str(tmp_path))
    served.client.containers.create("busybox", ["true"])
    visitor.show("images")
    expect(visitor.tab.get_by_role("listitem").filter(has_text="pruned:1").first).to_be_visible()  # of the treemap
    visitor.press("Remove unused …")
    visitor.tab.get_by_label("All of them").check()
    preview = visitor.tab.get_by_role("dialog").locator("details").nth(1)
    expect(preview).to_contain_text(re.compile(r"1 image, 5\.\d MiB"))
    preview.locator("summary").click()
    expect(preview.get_by_role("listitem")).to_have_text(re.compile("^pruned:1"))
    visitor.confirm("Remove")
    expect(visitor.tab.locator(".toast.good")).to_contain_text("came back")
    assert [image.tags for image in served.client.images.list()] == [["busybox:latest"]]


def test_a_build_has_a_log_and_a_timeline(visitor: Visitor, served: Wharf, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo said-by-$((6*7))\n")
    served.docker("build", "-q", "-t", "built:1", str(tmp_path))
    visitor.show("images")
    visitor.tab.locator(".builds").get_by_role("button", name="built:1").first.click()
    expect(visitor.tab.get_by_label("Log of the build")).to_contain_text("said-by-42")
    expect(visitor.tab.locator(".builds .timeline")).to_be_visible()
    served.docker("rmi", "built:1")


def test_disk_shows_where_the_bytes_are(visitor: Visitor, served: Wharf) -> None:
    script = "dd if=/dev/zero of=/data/big bs=1M count=3; dd if=/dev/zero of=/own bs=1M count=2; sleep 600"
    made = served.client.containers.run(
        "busybox", ["sh", "-c", script], name="heavy", detach=True, volumes={"precious": {"bind": "/data"}}
    )
    assert until(lambda: made.exec_run(["test", "-s", "/own"]).exit_code == 0)
    visitor.show("disk")
    expect(visitor.tab.locator(".sharelist")).to_contain_text(re.compile(r"Volumes\s*3\.\d MiB"))
    expect(visitor.tab.locator(".sharelist")).to_contain_text(re.compile(r"Writable layers\s*2\.\d MiB"))
    graph = visitor.tab.locator("svg.graph")
    expect(graph).to_have_attribute("aria-label", "2 connections of 1 containers")
    visitor.press("Remove precious")
    visitor.confirm("Remove")
    expect(visitor.tab.locator(".toast.bad")).to_contain_text("volume is in use")
    visitor.complaints.clear()


def test_the_machine_shows_its_use_and_the_errors_of_the_engine(visitor: Visitor, served: Wharf) -> None:
    visitor.show("machine")
    total = re.escape(visitor.tab.locator(".head p").inner_text().split(", ")[1])
    use = re.compile(rf"Memory, of {total}: Memory [0-9.]+ [MG]iB")
    expect(visitor.tab.get_by_role("img", name=use)).to_be_visible()
    expect(visitor.tab.get_by_text(served.client.version()["KernelVersion"])).to_be_visible()
    expect(visitor.tab.get_by_role("heading", name="Warnings and errors of the engine")).to_be_visible()


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_every_screen_is_accessible(
    browser: Browser, site: Site, served: Wharf, project: Path, size: tuple[int, int], scheme: str
) -> None:
    served.client.containers.create("busybox", ["true"], name="stopped", ports={"80/tcp": 8080})
    visitor = open_tab(browser, served, site.url, size, scheme)
    visitor.log_in()
    visitor.complaints.clear()
    web = served.client.containers.get("shop-web-1").id
    routes = ["containers", "projects", "projects/shop", "images", "disk", "machine"]
    routes += [f"containers/{web}{tab}" for tab in ("", "/logs", "/files", "/processes", "/timeline", "/inspect")]
    for route in routes:
        visitor.show(route)
        expect(visitor.tab.get_by_role("heading", level=1)).to_be_visible()
        expect(visitor.tab.locator(".skeleton")).to_have_count(0)
        assert visitor.violations() == [], route
        assert not visitor.overflows(), route
    assert visitor.complaints == []
    visitor.context.close()


def test_the_page_is_used_by_keyboard(visitor: Visitor, served: Wharf) -> None:
    made = served.client.containers.create("busybox", ["sleep", "600"], name="keys")
    button = visitor.tab.get_by_role("button", name="Start keys", exact=True)
    expect(button).to_be_visible()
    for _ in range(40):
        visitor.tab.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            break
    visitor.tab.keyboard.press("Enter")
    expect(visitor.tab.get_by_role("row").filter(has_text="keys")).to_contain_text("running")
    visitor.tab.get_by_role("button", name="Kill keys").focus()
    visitor.tab.keyboard.press("Space")
    visitor.tab.keyboard.press("Escape")
    expect(visitor.tab.get_by_role("dialog")).to_have_count(0)
    made.reload()
    assert made.status == "running"


def test_nothing_is_left_of_the_document_before_the_page(visitor: Visitor) -> None:
    expect(visitor.tab.get_by_text("needs JavaScript")).to_have_count(0)


def test_the_theme_is_kept(visitor: Visitor) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    before = visitor.tab.evaluate(back)
    visitor.press("Light or dark")
    assert visitor.tab.evaluate(back) != before
    visitor.tab.reload()
    expect(visitor.tab.get_by_role("heading", level=1)).to_be_visible()
    assert visitor.tab.evaluate(back) != before
    visitor.press("Light or dark")


def test_the_page_finds_back_to_a_restarted_engine(visitor: Visitor, served: Wharf) -> None:
    served.client.containers.create("busybox", ["true"], name="kept")
    expect(visitor.tab.get_by_role("link", name="kept")).to_be_visible()
    served.kill("wharfd")
    expect(visitor.tab.get_by_text("The connection to the engine was lost")).to_be_visible()
    served.start()
    # Sessions end with the daemon.
    expect(visitor.tab).to_have_url(f"{visitor.url}/login")
    visitor.complaints.clear()
