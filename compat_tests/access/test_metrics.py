"""Metrics of an engine with a policy: users see their own containers and account, the administrator all, and clients
of ``--metrics-addr``, who can't be identified, only the engine."""

from __future__ import annotations

import re

from compat_tests.support.api import Api, TcpApi
from compat_tests.support.host.ports import free_ports
from compat_tests.support.polling import until
from compat_tests.support.users import lab

POLICY = """
default_role = "member"
published_images = ["docker.io/library/busybox:*"]

[roles.member]
"""
_SERIES = re.compile(r'^container_cpu_usage_seconds_total\{.*name="([^"]*)".*\} ([0-9.e+-]+)$', re.MULTILINE)


def shown(api: Api) -> tuple[dict[str, float], str]:
    """The CPU time of each container, and the whole text."""
    answer = api.get("/metrics")
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    return {name: float(value) for name, value in _SERIES.findall(text)}, text


def test_each_caller_has_a_view_of_its_own() -> None:
    port = free_ports()
    with lab("metrics", POLICY, ("alice", "bob"), "--metrics-addr", f"127.0.0.1:{port}") as made:
        made["alice"].docker("run", "-d", "--name", "hers", "busybox", "sleep", "600")
        made["bob"].docker("run", "-d", "--name", "his", "busybox", "sh", "-c", "while :; do :; done")
        own, text = shown(made["alice"].api)
        assert list(own) == ["hers"]
        assert "engine_daemon" not in text
        assert made.users["bob"].name not in text
        assert f'wharf_owner_running_containers{{owner="{made["alice"].name}"}} 1.0' in text
        every, text = shown(made.engine.api)
        assert sorted(every) == ["hers", "his"]
        assert "engine_daemon_engine_info{" in text
        assert f'container_label_io_wharf_owner="{made["bob"].name}"' in text
        # The cgroup of a user's container is below the user's own.
        assert until(lambda: shown(made["bob"].api)[0]["his"] > 0)
        unknown, text = shown(TcpApi(port))
        assert unknown == {}
        assert "engine_daemon_engine_info{" in text
        assert "wharf_owner" not in text
        assert made.users["alice"].name not in text
