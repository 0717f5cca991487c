"""Who gets in: only a browser with a link, and only from the page itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, expect

from compat_tests.clients.ui.conftest import Site
from compat_tests.support.browser import WHARF, Visitor, open_tab
from compat_tests.support.engines import Wharf


def test_without_a_link_nothing_is_shown(stranger: Visitor) -> None:
    stranger.tab.goto(f"{stranger.url}/#/containers")
    expect(stranger.tab).to_have_url(f"{stranger.url}/login#/containers")
    expect(stranger.tab.get_by_text("This link was used already")).to_have_count(0)
    answer = stranger.context.request.get(f"{stranger.url}/api/containers/json")
    assert answer.status == 401


def test_a_wrong_token_is_refused(stranger: Visitor) -> None:
    stranger.tab.goto(f"{stranger.url}/login#nonsense")
    expect(stranger.tab.get_by_role("status")).to_contain_text("used already or is too old")


def test_a_link_works_once(browser: Browser, site: Site, stranger: Visitor) -> None:
    link = site.engine.run(*WHARF, "ui").stdout.strip()
    stranger.tab.goto(link)
    expect(stranger.tab.get_by_role("heading", name="Containers")).to_be_visible()
    other = open_tab(browser, site.engine, site.url)
    other.tab.goto(link)
    expect(other.tab.get_by_role("status")).to_contain_text("used already")
    other.context.close()


def test_a_logout_ends_the_session(visitor: Visitor) -> None:
    visitor.press("Log out")
    expect(visitor.tab).to_have_url(f"{visitor.url}/login")
    visitor.tab.goto(f"{visitor.url}/")
    expect(visitor.tab).to_have_url(f"{visitor.url}/login")
    visitor.complaints.clear()  # the stream of a page without a session


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another site on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


ATTACK = """async (url) => {
    const found = [];
    const attempt = async (work) => { try { found.push(await work()); } catch (error) { found.push("refused"); } };
    const options = { method: "POST", credentials: "include", mode: "no-cors" };
    await attempt(async () => { await fetch(`${url}/api/containers/victim/kill`, options); return "sent"; });
    await attempt(async () => (await fetch(`${url}/api/containers/json`, { credentials: "include" })).text());
    await attempt(() => new Promise((resolve, reject) => {
        const socket = new WebSocket(`${url.replace("http", "ws")}/api/containers/victim/attach/ws?stream=1&stdin=1`);
        socket.onopen = () => resolve("opened");
        socket.onerror = reject;
    }));
    await attempt(() => new Promise((resolve, reject) => {
        const source = new EventSource(`${url}/live`, { withCredentials: true });
        source.onopen = () => resolve("opened");
        source.onerror = reject;
    }));
    return found;
}"""


def test_another_site_reaches_nothing(visitor: Visitor, served: Wharf, elsewhere: str) -> None:
    victim = served.client.containers.run("busybox", ["sleep", "600"], name="victim", detach=True)
    tab = visitor.context.new_page()
    tab.goto(elsewhere)
    assert tab.evaluate(ATTACK, visitor.url.replace("127.0.0.1", "localhost"))[1:] == ["refused"] * 3
    assert tab.evaluate(ATTACK, visitor.url)[1:] == ["refused"] * 3
    victim.reload()
    assert victim.status == "running"
    visitor.complaints.clear()
