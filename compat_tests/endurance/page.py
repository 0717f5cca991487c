"""python -m compat_tests.endurance.page: the page in a browser, beside many containers that write logs.

Prints how long the list takes to appear, and the times between frames of the list, of a filter, and of the logs of a
project: 16.7 ms is a frame of a screen with 60 Hz. Exit status 1: half of the frames take longer than 50 ms.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Page, sync_playwright

from compat_tests.support import engines
from compat_tests.support.browser import ARGUMENTS, open_tab
from compat_tests.support.engines import Wharf
from compat_tests.support.host.ports import free_ports

PROJECTS = 20
#: Milliseconds; see above.
_SLOW = 50.0
WRITER = """exec awk 'BEGIN {{ while (1) {{
  for (i = 0; i < {rate}; i++) print "a line of a log, as services write it"
  fflush(); system("sleep 1")
}} }}'"""

FRAMES = """(ms) => new Promise((resolve) => {
    const found = [];
    let last = performance.now();
    const end = last + ms;
    const tick = (now) => {
        found.push(now - last);
        last = now;
        if (now < end) return requestAnimationFrame(tick);
        found.sort((a, b) => a - b);
        const at = (share) => found[Math.min(found.length - 1, Math.floor(found.length * share))];
        resolve({ frames: found.length, median: at(0.5), "95 %": at(0.95), "99 %": at(0.99), longest: found.at(-1) });
    };
    requestAnimationFrame(tick);
})"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.page", description=__doc__)
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--lines", type=int, default=50, help="that each container writes in a second")
    options = parser.parse_args()
    address = f"127.0.0.1:{free_ports()}"
    with engines.wharf("page", "--ui", address) as engine:
        engine.load_busybox()
        try:
            _fill(engine, options.containers, options.lines)
            return _watch(engine, address, options.containers)
        finally:
            engine.remove_all()


def _fill(engine: Wharf, count: int, lines: int) -> None:
    api = engine.client.api
    host = api.create_host_config(network_mode="none", init=False)
    command = ["sh", "-c", WRITER.format(rate=lines)] if lines else ["sleep", "36000"]

    def start(number: int) -> None:
        labels = {
            "com.docker.compose.project": f"project-{number % PROJECTS}",
            "com.docker.compose.service": f"service-{number // PROJECTS}",
        }
        api.start(api.create_container("busybox", command, name=f"up{number}", labels=labels, host_config=host))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(count)))


def _watch(engine: Wharf, address: str, count: int) -> int:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        visitor = open_tab(browser, engine, f"http://{address}")
        began = time.monotonic()
        visitor.log_in()
        visitor.tab.locator("tr[data-name]").nth(count - 1).wait_for(state="attached", timeout=120_000)
        print(f"the list of {count} containers is shown after {time.monotonic() - began:.1f} s", flush=True)
        medians = [_frames("list", visitor.tab)]
        visitor.tab.get_by_label("Filter containers").fill("up1")
        medians.append(_frames("filtered list", visitor.tab))
        visitor.show("projects/project-3")
        visitor.tab.locator(".logs").wait_for()
        medians.append(_frames("logs of one project", visitor.tab))
        print(f"complaints of the browser: {visitor.complaints or 'none'}")
        browser.close()
    return int(max(medians) > _SLOW)


def _frames(what: str, tab: Page) -> float:
    found: Mapping[str, float] = tab.evaluate(FRAMES, 10_000)
    shown = ", ".join(f"{name} {value:.0f}" for name, value in found.items())
    print(f"{what}: {shown} (ms)", flush=True)
    return found["median"]


if __name__ == "__main__":
    sys.exit(main())
