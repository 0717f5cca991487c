"""A person in a browser, on the page of a real engine."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cache

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from compat_tests.support.engines import Wharf
from compat_tests.support.npm import modules
from compat_tests.support.patience import FACTOR

#: The command ``wharf``.
WHARF = (sys.executable, "-m", "server.cli")
#: Milliseconds for which an expectation may be wrong.
PATIENCE = 15_000 * FACTOR
WIDE, PHONE = (1440, 900), (390, 844)

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@cache
def axe() -> str:
    """The script of axe-core."""
    return (modules() / "axe-core" / "axe.min.js").read_text()


@dataclass
class Visitor:
    """``url``: of the page. ``complaints``: what the browser has reported: errors of scripts, and refusals by the
    Content-Security-Policy."""

    engine: Wharf
    url: str
    context: BrowserContext
    tab: Page
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        def said(message: ConsoleMessage) -> None:
            # Other programs of this host change its addresses, for which a browser aborts its requests.
            if message.type == "error" and "ERR_NETWORK_CHANGED" not in message.text:
                self.complaints.append(message.text)

        self.tab.on("console", said)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def log_in(self) -> None:
        """As a person does: opens the link that ``wharf ui`` prints."""
        link = self.engine.run(*WHARF, "ui").stdout.strip()
        assert link.startswith(f"{self.url}/login#"), link
        self.tab.goto(link)
        self.tab.wait_for_url(f"{self.url}/")
        expect(self.tab.get_by_role("heading", level=1)).to_be_visible(timeout=PATIENCE)

    def show(self, route: str) -> None:
        self.tab.goto(f"{self.url}/#/{route}")

    def show_container(self, name: str, tab: str = "") -> None:
        id = self.engine.client.containers.get(name).id
        self.show(f"containers/{id}/{tab}".rstrip("/"))
        expect(self.tab.get_by_role("heading", level=1, name=name)).to_be_visible(timeout=PATIENCE)

    def press(self, name: str | re.Pattern[str]) -> None:
        self.tab.get_by_role("button", name=name).first.click()

    def confirm(self, button: str) -> None:
        self.tab.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical. Its script is run by the browser's debugger, which the policy of
        the page allows."""
        self.tab.evaluate(axe())
        found = self.tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"][:3]
        ]

    def overflows(self) -> bool:
        """Whether the document is wider than the window."""
        found: bool = self.tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return found


def open_tab(browser: Browser, engine: Wharf, url: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> Visitor:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        accept_downloads=True,
    )
    context.set_default_timeout(PATIENCE)
    found = Visitor(engine, url, context, context.new_page())
    found.watch()
    return found
