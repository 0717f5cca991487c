"""One engine with a page, and one browser, for all tests of this directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from compat_tests.support import engines
from compat_tests.support.browser import ARGUMENTS, PATIENCE, Visitor, open_tab
from compat_tests.support.engines import Wharf
from compat_tests.support.host.ports import free_ports


@dataclass(frozen=True)
class Site:
    engine: Wharf
    url: str


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    address = f"127.0.0.1:{free_ports()}"
    with engines.wharf("ui", "--ui", address) as served:
        served.load_busybox()
        yield Site(served, f"http://{address}")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture
def stranger(browser: Browser, site: Site) -> Iterator[Visitor]:
    """Somebody who has not logged in."""
    found = open_tab(browser, site.engine, site.url)
    yield found
    found.context.close()


@pytest.fixture
def visitor(stranger: Visitor) -> Iterator[Visitor]:
    """Somebody who has logged in. The browser must not complain during the test."""
    stranger.log_in()
    stranger.complaints.clear()
    yield stranger
    assert stranger.complaints == []


@pytest.fixture
def served(site: Site) -> Iterator[Wharf]:
    """The engine; what a test has made in it is removed."""
    yield site.engine
    for container in site.engine.client.containers.list(all=True, ignore_removed=True):
        container.remove(force=True, v=True)
    site.engine.client.volumes.prune({"all": ["true"]})
    site.engine.client.networks.prune()
