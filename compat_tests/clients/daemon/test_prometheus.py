"""Debian's Prometheus scrapes the metrics, in both formats, and finds containers over the Engine API beside that."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Wharf
from compat_tests.support.host.ports import free_ports
from compat_tests.support.npm import CACHE
from compat_tests.support.polling import until

CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: wharf
    static_configs: [{{ targets: ["{metrics}"] }}]
  - job_name: text
    scrape_protocols: [PrometheusText0.0.4]
    static_configs: [{{ targets: ["{metrics}"] }}]
  - job_name: containers
    docker_sd_configs:
      - {{ host: "{host}", refresh_interval: 1s, filters: [{{ name: label, values: [purpose=discovery] }}] }}
"""


def program() -> str:
    """Prometheus of the PATH, or the one that ``deploy/test.sh`` has unpacked."""
    found = shutil.which("prometheus", path=f"{os.environ['PATH']}:{CACHE}/prometheus/usr/bin")
    if found is None:
        pytest.skip("needs prometheus")
    return found


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; None: it isn't ready."""
        try:
            with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def series(self, expression: str) -> list[dict[str, Any]]:
        data = self.get("query", query=expression)
        found: list[dict[str, Any]] = data["result"] if data is not None else []
        return found

    def has(self, expression: str) -> bool:
        """Whether the expression has a value soon."""
        return until(lambda: bool(self.series(expression)), seconds=20)

    def targets(self, job: str) -> list[dict[str, Any]]:
        data = self.get("targets") or {"activeTargets": []}
        return [target for target in data["activeTargets"] if target["scrapePool"] == job]


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    port = free_ports()
    (folder / "prometheus.yml").write_text(config)
    words = [program(), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(60)


def test_prometheus_scrapes_the_engine(tmp_path: Path) -> None:
    program()
    metrics = f"127.0.0.1:{free_ports()}"
    with engines.wharf("prometheus", "--metrics-addr", metrics) as engine:
        engine.load_busybox()
        labels = ("-l", "com.docker.compose.project=shop", "-l", "purpose=discovery")
        command = ("busybox", "httpd", "-f", "-p", "8080")
        engine.docker("run", "-d", "--name", "web", *labels, "--memory", "64m", "-p", "127.0.0.1::8080", *command)
        with prometheus(tmp_path, CONFIG.format(metrics=metrics, host=engine.host)) as server:
            check(engine, server)


def check(engine: Wharf, server: Prometheus) -> None:
    for job in ("wharf", "text"):
        assert server.has(f'container_last_seen{{job="{job}",name="web"}}'), f"targets: {server.targets(job)}"
        shown = server.series(f'container_spec_memory_limit_bytes{{job="{job}",name="web"}}')
        assert [each["value"][1] for each in shown] == [str(64 << 20)]
        assert shown[0]["metric"]["container_label_com_docker_compose_project"] == "shop"
        assert shown[0]["metric"]["image"] == "busybox"
        assert shown[0]["metric"]["id"].endswith(tuple(row["Id"] for row in engine.api.get("/containers/json").json()))
        for name in (
            "container_memory_working_set_bytes",
            "container_network_receive_bytes_total",
            "container_threads",
        ):
            assert float(server.series(f'{name}{{job="{job}",name="web"}}')[0]["value"][1]) > 0, name
        assert server.series(f'engine_daemon_container_states_containers{{job="{job}",state="running"}} == 1')
        (target,) = server.targets(job)
        assert (target["health"], target["lastError"]) == ("up", "")
    # Two scrapes: a rate needs them.
    assert server.has('rate(container_cpu_usage_seconds_total{job="wharf",name="web"}[1m])')
    assert until(lambda: bool(server.targets("containers")))
    found = server.targets("containers")[0]["discoveredLabels"]
    assert found["__meta_docker_container_name"] == "/web"
    assert found["__meta_docker_port_private"] == "8080"
