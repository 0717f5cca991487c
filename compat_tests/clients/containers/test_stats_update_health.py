"""Statistics, `docker top`, live updates and health checks."""

from __future__ import annotations

import calendar
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

MIB = 1 << 20
V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def keys(value: Any) -> Any:
    """Return the keys of a record, recursively."""
    return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


@pytest.mark.core
def test_one_record_has_two_samples(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "while :; do :; done"], HostConfig={"Memory": 64 * MIB}) as box:
        found = engine.api.get(f"/containers/{box}/stats", stream=0).json()
        assert (found["id"], found["name"].startswith("/")) == (box, True)
        now, before = found["cpu_stats"], found["precpu_stats"]
        assert now["cpu_usage"]["total_usage"] > before["cpu_usage"]["total_usage"] > 0
        assert now["system_cpu_usage"] > before["system_cpu_usage"] > 0
        assert now["online_cpus"] >= 1
        assert found["read"] > found["preread"] > "2000"
        assert found["memory_stats"]["limit"] == 64 * MIB
        assert 0 < found["memory_stats"]["usage"] < 64 * MIB
        assert found["pids_stats"]["current"] >= 1
        single = engine.api.get(f"/containers/{box}/stats", **{"stream": 0, "one-shot": 1}).json()
        assert single["precpu_stats"]["cpu_usage"]["total_usage"] == 0
        assert single["preread"] == "0001-01-01T00:00:00Z"
        refused = engine.api.get(f"/containers/{box}/stats", **{"stream": 1, "one-shot": 1})
        assert refused.error == (400, "cannot have stream=true and one-shot=true")


def test_a_stream_of_records(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        connection = engine.api.connection()
        try:
            connection.request("GET", f"/containers/{box}/stats")
            response = connection.getresponse()
            records = [json.loads(response.readline()) for _ in range(3)]
        finally:
            connection.close()
        assert records[2]["preread"] == records[1]["read"]
        assert records[2]["precpu_stats"] == records[1]["cpu_stats"]
        assert records[0]["read"] < records[1]["read"] < records[2]["read"]


def test_statistics_have_dockerds_shape(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], HostConfig={"Memory": 64 * MIB, "NetworkMode": "bridge"}) as box:
        found = engine.api.get(f"/containers/{box}/stats", stream=0).json()
        counters = dict.fromkeys(
            f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")
        )
        assert keys(found["networks"]) == {"eth0": counters}
        usage = {"total_usage", "usage_in_kernelmode", "usage_in_usermode"} | (set() if V2 else {"percpu_usage"})
        assert set(found["cpu_stats"]) == {"cpu_usage", "system_cpu_usage", "online_cpus", "throttling_data"}
        assert set(found["cpu_stats"]["cpu_usage"]) == usage
        assert set(found["memory_stats"]) - {"failcnt", "max_usage"} == {"usage", "stats", "limit"}
        expected = {"anon", "file", "inactive_file"} if V2 else {"cache", "rss", "total_inactive_file", "pgpgin"}
        assert expected <= set(found["memory_stats"]["stats"])
        assert set(found["blkio_stats"]) == {
            "io_service_bytes_recursive",
            "io_serviced_recursive",
            "io_queue_recursive",
            "io_service_time_recursive",
            "io_wait_time_recursive",
            "io_merged_recursive",
            "io_time_recursive",
            "sectors_recursive",
        }


def test_a_stopped_container_has_an_empty_record(engine: Engine) -> None:
    with container(engine, start=False, Cmd=["true"]) as box:
        found = engine.api.get(f"/containers/{box}/stats", stream=0).json()
        assert found["read"] == "0001-01-01T00:00:00Z"
        assert found["cpu_stats"]["cpu_usage"] == {
            "total_usage": 0,
            "usage_in_kernelmode": 0,
            "usage_in_usermode": 0,
        }
        assert found["memory_stats"] == {}
        assert found["pids_stats"] == {}
    done = engine.docker("stats", "--no-stream", "nosuch", check=False)
    assert "No such container: nosuch" in done.output


def test_cli_shows_statistics(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], HostConfig={"Memory": 64 * MIB}) as box:

        def table() -> list[str]:
            done = engine.docker("stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}} {{.PIDs}}", box)
            identity, _, _, limit, pids = done.stdout.split()
            return [identity, limit, pids]

        # The CLI waits two seconds, of which two samples take one; a missing value is shown as zero.
        assert until(lambda: table() == [box[:12], "64MiB", "1"]), table()


@pytest.mark.core
def test_top_shows_processes(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "sleep 601 & sleep 602 & wait"]) as box:

        def commands() -> list[str]:
            found = engine.api.get(f"/containers/{box}/top").json()
            assert found["Titles"][-1] == "CMD"
            return sorted(row[-1] for row in found["Processes"])

        expected = ["sh -c sleep 601 & sleep 602 & wait", "sleep 601", "sleep 602"]
        assert until(lambda: commands() == expected, seconds=60), commands()
        some = engine.api.get(f"/containers/{box}/top", ps_args="-o pid,comm").json()
        assert some["Titles"] == ["PID", "COMMAND"]
        assert len(some["Processes"]) == 3
        wide = engine.docker("top", box, "aux").stdout.splitlines()
        assert wide[0].split()[:2] == ["USER", "PID"]
        assert len(wide) == 4

        def status_and_message(arguments: str) -> tuple[int, str]:
            return engine.api.get(f"/containers/{box}/top", ps_args=arguments).error

        assert status_and_message("-o comm") == (500, "Couldn't find PID field in ps output")
        assert status_and_message("-o pid,user=PID")[0] == 500
        status, words = status_and_message("--no-such-option")
        assert status == 500
        assert words.startswith("ps: ")
    with container(engine, start=False, Cmd=["true"]) as box:
        answer = engine.api.get(f"/containers/{box}/top")
        assert answer.error == (409, f"container {box} is not running")


def memory_limit(engine: Engine, box: str) -> int:
    """Return the kernel's limit, as the container sees it."""
    file = "/sys/fs/cgroup/memory.max" if V2 else "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    return int(engine.docker("exec", box, "cat", file).stdout)


@pytest.mark.core
def test_update_of_a_running_container(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], HostConfig={"Memory": 64 * MIB}) as box:
        assert memory_limit(engine, box) == 64 * MIB
        expected = {"Memory": 96 * MIB, "MemorySwap": 192 * MIB, "CpuShares": 512, "PidsLimit": 77}
        answer = engine.api.post(f"/containers/{box}/update", expected)
        assert (answer.status, answer.json()) == (200, {"Warnings": None})
        assert memory_limit(engine, box) == 96 * MIB
        host = engine.api.get(f"/containers/{box}/json").json()["HostConfig"]
        assert {key: host[key] for key in expected} == expected
        pids = "/sys/fs/cgroup/pids.max" if V2 else "/sys/fs/cgroup/pids/pids.max"
        assert engine.docker("exec", box, "cat", pids).stdout == "77\n"
        engine.docker("update", "--restart", "on-failure:3", "--pids-limit", "-1", box)
        host = engine.api.get(f"/containers/{box}/json").json()["HostConfig"]
        assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
        assert host["Memory"] == 96 * MIB


def test_update_of_the_memory_limit_by_the_cli(engine: Engine, oracle: Engine) -> None:
    """Above the limit of memory and swap, which is 0 without limits, a new one of memory needs one of both."""

    def answers(each: Engine, *words: str, **host: int) -> list[str]:
        if not each.api.get("/info").json()["SwapLimit"]:
            pytest.skip("this kernel limits no swap: --memory alone is applied")
        with container(each, Cmd=["sleep", "600"], HostConfig=host) as box:
            done = each.docker("update", *words, box, check=False)
            shown = each.api.get(f"/containers/{box}/json").json()["HostConfig"]
            return [done.output.replace(box, "ID"), str(shown["Memory"]), str(shown["MemorySwap"])]

    refused = (
        "Error response from daemon: Cannot update container ID: Memory limit should be smaller than already set "
        "memoryswap limit, update the memoryswap at the same time\n"
    )
    both = ("--memory", "64m", "--memory-swap", "128m")
    limited = {"Memory": 64 * MIB, "MemorySwap": 128 * MIB}
    for words, host, expected in (
        (("--memory", "64m"), {}, [refused, "0", "0"]),
        (both, {}, ["ID\n", str(64 * MIB), str(128 * MIB)]),
        (("--memory", "96m"), limited, ["ID\n", str(96 * MIB), str(128 * MIB)]),
        (("--memory", "256m"), limited, [refused, str(64 * MIB), str(128 * MIB)]),
    ):
        assert answers(engine, *words, **host) == answers(oracle, *words, **host) == expected
    # dockerd compares with -1, and refuses any limit where swap is unlimited.
    unlimited = {"Memory": 64 * MIB, "MemorySwap": -1}
    assert answers(engine, "--memory", "256m", **unlimited) == ["ID\n", str(256 * MIB), "-1"]
    assert answers(oracle, "--memory", "256m", **unlimited) == [refused, str(64 * MIB), "-1"]


def test_update_of_a_stopped_container_applies_at_its_start(engine: Engine) -> None:
    with container(engine, start=False, Cmd=["sleep", "600"]) as box:
        expected = {"Memory": 80 * MIB, "MemorySwap": -1}
        assert engine.api.post(f"/containers/{box}/update", expected).status == 200
        assert engine.api.post(f"/containers/{box}/start").status == 204
        assert memory_limit(engine, box) == 80 * MIB


def test_update_refusals(engine: Engine) -> None:
    def status_and_message(box: str, expected: dict[str, Any]) -> tuple[int, str]:
        answer = engine.api.post(f"/containers/{box}/update", expected)
        return answer.status, answer.message.removeprefix(f"Cannot update container {box}: ")

    assert status_and_message("nosuch", {}) == (404, "No such container: nosuch")
    with container(engine, Cmd=["sleep", "600"], HostConfig={"Memory": 64 * MIB, "NanoCpus": 500_000_000}) as box:
        assert status_and_message(box, {"Memory": 1}) == (400, "Minimum memory limit allowed is 6MB")
        too_much = (
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
        assert status_and_message(box, {"Memory": 512 * MIB}) == (409, too_much)
        mixed = "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
        assert status_and_message(box, {"CpuQuota": 20000}) == (409, mixed)
        both = "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
        assert status_and_message(box, {"NanoCpus": 10**9, "CpuQuota": 2000}) == (400, both)
        assert status_and_message(box, {"RestartPolicy": {"Name": "bogus"}})[0] == 400
        assert memory_limit(engine, box) == 64 * MIB
    with container(engine, Cmd=["sleep", "600"], HostConfig={"AutoRemove": True}) as box:
        removed = "Restart policy cannot be updated because AutoRemove is enabled for the container"
        assert status_and_message(box, {"RestartPolicy": {"Name": "always"}}) == (409, removed)


SECOND = 10**9


def health(engine: Engine, box: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/containers/{box}/json").json()["State"].get("Health") or {}
    return found


def check(*test: str, **more: int) -> dict[str, Any]:
    return {"Test": list(test), "Interval": SECOND // 5, "Timeout": 30 * SECOND, "Retries": 2, **more}


@pytest.mark.core
@honours("Config.Healthcheck")
def test_health_follows_its_probe(engine: Engine) -> None:
    began = int(time.time()) - 1
    # Probes before the file exists don't count.
    early = {"StartPeriod": 60 * SECOND, "StartInterval": SECOND // 5}
    test = check("CMD-SHELL", "echo checked; test -e /tmp/well", **early)
    with container(engine, Cmd=["sh", "-c", "touch /tmp/well; sleep 600"], Healthcheck=test) as box:
        assert health(engine, box)["Status"] in ("starting", "healthy")
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        engine.docker("exec", box, "rm", "/tmp/well")
        assert until(lambda: health(engine, box)["Status"] == "unhealthy", seconds=60)
        now = health(engine, box)
        assert now["FailingStreak"] >= 2
        assert (now["Log"][-1]["ExitCode"], now["Log"][-1]["Output"]) == (1, "checked\n")
        assert now["Log"][-1]["Start"] < now["Log"][-1]["End"]
        listed = engine.docker("ps", "--filter", "health=unhealthy", "--format", "{{.ID}} {{.Status}}").stdout
        assert f"{box[:12]} Up" in listed
        assert "(unhealthy)" in listed
        engine.docker("exec", box, "touch", "/tmp/well")
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        assert health(engine, box)["FailingStreak"] == 0
        assert until(lambda: len(health(engine, box)["Log"]) == 5, seconds=60)
        filters = json.dumps({"container": [box], "event": ["health_status"]})
        answer = engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters)
        actions = [event["Action"] for event in answer.lines()]
        assert actions == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]


@honours("Config.Shell")
def test_a_probe_runs_in_the_shell_of_its_container(engine: Engine) -> None:
    with container(
        engine, Cmd=["sleep", "600"], Shell=["echo", "by mine:"], Healthcheck=check("CMD-SHELL", "words")
    ) as box:
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        assert health(engine, box)["Log"][-1]["Output"] == "by mine: words\n"


def test_probe_timeout(engine: Engine) -> None:
    test = check("CMD", "sh", "-c", "echo said; sleep 600", Timeout=SECOND, Retries=1)
    with container(engine, Cmd=["sleep", "600"], Healthcheck=test) as box:
        assert until(lambda: health(engine, box)["Status"] == "unhealthy", seconds=60)

        def log() -> list[tuple[int, str]]:
            return [(entry["ExitCode"], entry["Output"]) for entry in health(engine, box)["Log"]]

        # On a busy host a probe may produce no output in time; then the next one does.
        expected = (-1, "Health check exceeded timeout (1s): said\n")
        assert until(lambda: expected in log(), seconds=60), log()


def test_a_probe_that_cannot_run(engine: Engine) -> None:
    test = check("CMD", "nosuchprogram", Retries=1)
    with container(engine, Cmd=["sleep", "600"], Healthcheck=test) as box:
        assert until(lambda: health(engine, box)["Status"] == "unhealthy", seconds=60)
        last = health(engine, box)["Log"][-1]
        assert last["ExitCode"] == -1
        assert "executable file not found" in last["Output"]


def test_retries_of_probes(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], Healthcheck=check("CMD", "false", Retries=1000)) as box:
        assert until(lambda: health(engine, box)["FailingStreak"] > 3, seconds=60)  # the default is three
        assert health(engine, box)["Status"] == "starting"


def test_failures_in_the_start_period_do_not_count(engine: Engine) -> None:
    test = check("CMD", "false", StartPeriod=600 * SECOND, StartInterval=SECOND // 5, Retries=1)
    with container(engine, Cmd=["sleep", "600"], Healthcheck=test) as box:
        assert until(lambda: len(health(engine, box)["Log"] or ()) >= 3, seconds=60)
        now = health(engine, box)
        assert (now["Status"], now["FailingStreak"]) == ("starting", 0)
        began = [calendar.timegm(time.strptime(entry["Start"][:19], "%Y-%m-%dT%H:%M:%S")) for entry in now["Log"]]
        # The default start interval is five seconds.
        assert min(later - earlier for earlier, later in itertools.pairwise(began)) < 5
        assert "(health: starting)" in engine.docker("ps", "--format", "{{.Status}}", "-f", f"id={box}").stdout


def test_output_is_truncated_and_none_disables_the_check(engine: Engine) -> None:
    test = check("CMD-SHELL", "head -c 9000 /dev/zero | tr '\\0' x")
    with container(engine, Cmd=["sleep", "600"], Healthcheck=test) as box:
        assert until(lambda: bool(health(engine, box)["Log"]), seconds=60)
        output = health(engine, box)["Log"][0]["Output"]
        assert output == "x" * 4096 + "..."
    with container(engine, Cmd=["sleep", "600"], Healthcheck={"Test": ["NONE"]}) as box:
        assert "Health" not in engine.api.get(f"/containers/{box}/json").json()["State"]


def test_pause_and_stop_end_the_probing(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"], Healthcheck=check("CMD", "true")) as box:
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        assert engine.api.post(f"/containers/{box}/pause").status == 204
        assert health(engine, box)["Status"] == "unhealthy"
        assert engine.api.post(f"/containers/{box}/unpause").status == 204
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        assert engine.api.post(f"/containers/{box}/kill").status == 204
        assert until(lambda: health(engine, box)["Status"] == "unhealthy", seconds=60)


def test_health_checks_continue_after_a_restart(own_engine: Engine) -> None:
    engine = own_engine
    with container(engine, Cmd=["sleep", "600"], Healthcheck=check("CMD", "true")) as box:
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
        if engine.kind == "dockerd":
            pytest.skip("dockerd stops its containers")
        engine.restart()
        last = health(engine, box)["Log"][-1]["Start"] if health(engine, box)["Log"] else ""
        assert until(lambda: (health(engine, box)["Log"] or [{"Start": ""}])[-1]["Start"] > last, seconds=60)
        assert until(lambda: health(engine, box)["Status"] == "healthy", seconds=60)
