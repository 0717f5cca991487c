"""The list of containers, and one container: what a person does there happens on the served."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from compat_tests.support.browser import Visitor
from compat_tests.support.engines import Wharf
from compat_tests.support.polling import until


def test_a_container_is_started_stopped_and_removed(visitor: Visitor, served: Wharf) -> None:
    row = visitor.tab.get_by_role("row").filter(has_text="worker")
    expect(row).to_have_count(0)
    made = served.client.containers.create("busybox", ["sleep", "600"], name="worker", stop_signal="KILL")
    expect(row).to_contain_text("created")  # without a reload of the page
    row.get_by_role("button", name="Start worker", exact=True).click()
    expect(row).to_contain_text("running")
    expect(row.locator(".use").nth(1)).to_contain_text("KiB")
    row.get_by_role("button", name="Stop worker").click()
    expect(row).to_contain_text("exited")
    row.get_by_role("button", name="Start worker", exact=True).click()
    row.get_by_role("button", name="Kill worker").click()
    visitor.confirm("Cancel")
    made.reload()
    assert made.status == "running"
    row.get_by_role("button", name="Kill worker").click()
    visitor.confirm("Kill")
    expect(row).to_contain_text("code 137")
    row.get_by_role("button", name="Remove worker").click()
    visitor.confirm("Remove")
    expect(row).to_have_count(0)
    assert served.client.containers.list(all=True) == []


def test_a_refusal_is_shown(visitor: Visitor, served: Wharf) -> None:
    served.client.containers.create("busybox", ["/no/such/program"], name="broken")
    visitor.press("Start broken")
    expect(visitor.tab.locator(".toast")).to_contain_text("no such file or directory")
    assert any("400" in text for text in visitor.complaints)
    visitor.complaints.clear()


def test_the_filter_finds_by_name_state_and_label(visitor: Visitor, served: Wharf) -> None:
    create = served.client.containers.create
    create("busybox", ["true"], name="alpha", labels={"env": "prod"})
    create("busybox", ["true"], name="beta", labels={"env": "test", "com.docker.compose.project": "shop"})
    names = visitor.tab.locator("tr[data-name]")
    expect(names).to_have_count(2)
    visitor.tab.keyboard.press("/")
    for text, found in (("alp", ["alpha"]), ("label:env=test", ["beta"]), ("state:created b", ["alpha", "beta"])):
        visitor.tab.keyboard.press("Control+a")
        visitor.tab.keyboard.type(text)
        expect(names).to_have_count(len(found))
        assert sorted(names.evaluate_all("rows => rows.map((row) => row.dataset.name)")) == found, text
    visitor.tab.keyboard.press("Control+a")
    visitor.tab.keyboard.press("Delete")
    expect(visitor.tab.get_by_role("rowheader").filter(has_text="shop")).to_be_visible()


def test_logs_are_followed_searched_and_saved(visitor: Visitor, served: Wharf, tmp_path: Path) -> None:
    script = (
        "echo plain; printf '\\033[31mred\\033[0m text\\n'; echo wrong >&2; while true; do echo tick; sleep 0.2; done"
    )
    served.client.containers.run("busybox", ["sh", "-c", script], name="talker", detach=True)
    visitor.show_container("talker", "logs")
    lines = visitor.tab.locator(".line")
    expect(lines.filter(has_text="plain")).to_be_visible()
    expect(visitor.tab.locator(".line .fg1")).to_have_text("red")
    expect(visitor.tab.locator(".line.stderr")).to_contain_text("wrong")
    before = lines.count()
    assert until(lambda: lines.count() > before + 2)
    visitor.tab.get_by_label("Search the log").fill("RED")
    expect(visitor.tab.locator(".line:visible")).to_have_count(1)
    visitor.tab.get_by_label("Search the log").fill("")
    visitor.tab.get_by_label("Times").check()
    expect(lines.first.locator("time")).to_have_text(re.compile(r"^20\d\d-"))
    with visitor.tab.expect_download() as saved:
        visitor.press("Download")
    assert saved.value.suggested_filename == "talker.log"
    saved.value.save_as(tmp_path / "log")
    assert "\x1b[31mred" in (tmp_path / "log").read_text()


def test_logs_go_on_after_a_restart(visitor: Visitor, served: Wharf) -> None:
    made = served.client.containers.run("busybox", ["sh", "-c", "echo begun; sleep 600"], name="again", detach=True)
    visitor.show_container("again", "logs")
    lines = visitor.tab.locator(".line").filter(has_text="begun")
    expect(lines).to_have_count(1)
    made.restart(timeout=0)
    assert until(lambda: lines.count() >= 2)


def test_a_person_types_in_a_terminal(visitor: Visitor, served: Wharf) -> None:
    made = served.client.containers.run("busybox", ["sleep", "600"], name="shell", detach=True)
    visitor.show_container("shell", "terminal")
    visitor.press("Open a terminal")
    screen = visitor.tab.frame_locator("iframe").locator("#terminal")
    expect(screen.locator(".xterm-rows")).to_contain_text("#")
    visitor.tab.keyboard.type("echo typed-$((40+2)) > /typed; cat /typed; stty size\n")
    expect(screen.locator(".xterm-rows")).to_contain_text("typed-42")
    assert made.exec_run(["cat", "/typed"]).output == b"typed-42\n"
    wide = visitor.tab.viewport_size
    assert wide is not None
    visitor.tab.set_viewport_size({"width": 800, "height": wide["height"]})
    visitor.tab.wait_for_timeout(500)
    visitor.tab.keyboard.type("clear; echo now $(stty size) columns\n")
    expect(screen.locator(".xterm-rows")).to_contain_text(re.compile(r"now \d+ \d+ columns"))
    columns = int(re.findall(r"now \d+ (\d+) columns", screen.locator(".xterm-rows").inner_text())[-1])
    assert 40 < columns < 110
    visitor.tab.keyboard.type("exit\n")
    expect(screen.locator(".xterm-rows")).to_contain_text("connection was closed")


def test_a_plot_moves_under_a_load(visitor: Visitor, served: Wharf) -> None:
    made = served.client.containers.run("busybox", ["sleep", "600"], name="loaded", detach=True)
    visitor.show_container("loaded")
    cpu = visitor.tab.get_by_role("img", name=re.compile("^CPU"))
    expect(cpu).to_have_attribute("aria-label", re.compile(r"CPU [0-9.]+ %"))
    made.exec_run(["sh", "-c", "while :; do :; done"], detach=True)
    expect(cpu).to_have_attribute("aria-label", re.compile(r"CPU [1-9]\d+ %"))
    expect(visitor.tab.locator(".uplot canvas").first).to_be_visible()


def test_files_are_listed_sent_and_fetched(visitor: Visitor, served: Wharf, tmp_path: Path) -> None:
    made = served.client.containers.run("busybox", ["sleep", "600"], name="files", detach=True)
    made.exec_run(["sh", "-c", "mkdir -p /data/inner; ln -s /etc /data/link; echo hello > /data/greeting"])
    visitor.show_container("files", "files")
    visitor.press("data")
    entries = visitor.tab.locator("tbody tr")
    expect(entries.filter(has_text="greeting")).to_contain_text("6 B")
    expect(entries.filter(has_text="link")).to_contain_text("→ /etc")
    names = ("sent.bin", f"{'long-' * 30}ü.txt")
    for name in names:
        (tmp_path / name).write_bytes(name.encode() * 1000)
    visitor.tab.get_by_label("Files to upload").set_input_files([tmp_path / name for name in names])
    for name in names:
        expect(entries.filter(has_text=name)).to_be_visible()
        assert made.exec_run(["cat", f"/data/{name}"]).output == name.encode() * 1000
    with visitor.tab.expect_download() as saved:
        visitor.press("Download greeting")
    saved.value.save_as(tmp_path / "greeting")
    assert (tmp_path / "greeting").read_text() == "hello\n"
    with visitor.tab.expect_download() as saved:
        visitor.press(f"Download {names[1]}")
    saved.value.save_as(tmp_path / "long")
    assert (tmp_path / "long").read_bytes() == names[1].encode() * 1000


def test_what_else_a_container_shows(visitor: Visitor, served: Wharf) -> None:
    environment = {"MODE": "test", "API_TOKEN": "verysecret"}
    made = served.client.containers.run(
        "busybox", ["sleep", "600"], name="shown", detach=True, environment=environment, mem_limit="64m"
    )
    made.exec_run(["touch", "/new-file"])
    visitor.show_container("shown")
    expect(visitor.tab.get_by_text("MODE")).to_be_visible()
    expect(visitor.tab.get_by_text("verysecret")).to_have_count(0)
    visitor.press("Show API_TOKEN")
    expect(visitor.tab.get_by_text("verysecret")).to_be_visible()
    expect(visitor.tab.get_by_role("heading", name="Memory, of 64.0 MiB")).to_be_visible()
    for tab, text in (("processes", "sleep 600"), ("changes", "/new-file"), ("timeline", "snapshot")):
        visitor.show_container("shown", tab)
        expect(visitor.tab.get_by_text(text, exact=True).first).to_be_visible()
    visitor.show_container("shown", "inspect")
    visitor.tab.get_by_label("Find a name or a value").fill("nanocpus")
    expect(visitor.tab.locator(".json-key").filter(has_text="NanoCpus")).to_be_visible()
    visitor.press("Rename …")
    visitor.tab.get_by_label("New name").fill("renamed")
    visitor.confirm("Rename")
    expect(visitor.tab.get_by_role("heading", level=1, name="renamed")).to_be_visible()
    made.reload()
    assert made.name == "renamed"


@pytest.mark.parametrize("count", [300])
def test_many_containers_are_shown(visitor: Visitor, served: Wharf, count: int) -> None:
    for number in range(count):
        served.client.api.create_container("busybox", ["true"], name=f"many-{number:03}")
    expect(visitor.tab.locator("tr[data-name]")).to_have_count(count)
    visitor.tab.get_by_label("Filter containers").fill("many-29")
    expect(visitor.tab.locator("tr[data-name]")).to_have_count(10)
    visitor.press("Remove stopped …")
    expect(visitor.tab.get_by_role("dialog").get_by_role("listitem")).to_have_count(count)
    visitor.confirm("Remove")
    visitor.tab.get_by_label("Filter containers").fill("")
    expect(visitor.tab.locator("tr[data-name]")).to_have_count(0)


def test_what_a_container_says_is_text(visitor: Visitor, served: Wharf) -> None:
    attack = "<img src=/x onerror=document.title='taken'><script>document.title='taken'</script>"
    made = served.client.containers.run(
        "busybox",
        ["sh", "-c", f'echo "{attack}"; mkdir "/<b>bold<"; sleep 600'],
        name="hostile",
        detach=True,
        labels={attack: attack, "com.docker.compose.project": "<i>p</i>"},
        environment={"TEXT": attack},
    )
    visitor.show_container("hostile", "logs")
    expect(visitor.tab.locator(".line").first).to_have_text(re.compile(re.escape(attack)))
    for tab in ("", "inspect", "files"):
        visitor.show_container("hostile", tab)
        expect(visitor.tab.get_by_text("bold<" if tab == "files" else attack).first).to_be_attached()
    visitor.show("containers")
    expect(visitor.tab.get_by_role("link", name="<i>p</i>")).to_be_visible()
    assert visitor.tab.title() == "Containers – Wharf"
    assert visitor.tab.locator("main img, main script, main b:not([class]), main i").count() == 0
    made.remove(force=True)


def test_logs_go_on_after_a_lost_connection(visitor: Visitor, served: Wharf) -> None:
    """No line is lost or shown twice."""
    script = "i=0; while true; do i=$((i+1)); echo line-$i; sleep 0.05; done"
    served.client.containers.run("busybox", ["sh", "-c", script], name="steady", detach=True)
    requests: list[str] = []
    visitor.tab.on("request", lambda request: requests.append(request.url) if "/logs?" in request.url else None)
    visitor.show_container("steady", "logs")
    lines = visitor.tab.locator(".line")
    expect(lines.first).to_be_visible()
    for _ in range(2):
        before = lines.count()
        _end_connections(visitor)
        assert until(lambda before=before: lines.count() > before + 30)  # type: ignore[misc] # the default binds it
    assert len(requests) >= 3
    shown = lines.evaluate_all("lines => lines.map((line) => Number(line.textContent.split('line-')[1]))")
    assert shown == list(range(1, len(shown) + 1))
    visitor.complaints.clear()


def _end_connections(visitor: Visitor) -> None:
    """Ends all connections of the page, as a restart of a proxy would."""
    port = visitor.url.rpartition(":")[2]
    command = ["ss", "-K", "-t", "dst", "127.0.0.1", "dport", "=", f":{port}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
