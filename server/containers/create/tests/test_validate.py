"""Invalid create requests are refused with dockerd's sentences; limits that the host can't enforce give warnings."""

from typing import Any

import pytest

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import Kind, WharfError
from server.containers.create import validate
from server.containers.host.limits import HostLimits

FULL = HostLimits(
    unified=False,
    memory=True,
    swap=True,
    reservation=True,
    swappiness=True,
    oom_kill_disable=True,
    cpu_shares=True,
    cpu_cfs=True,
    cpuset=True,
    cpus="0-3",
    mems="0",
    pids=True,
    blkio_weight=True,
    cgroup_namespaces=True,
    ncpu=4,
)


def rules(limits: HostLimits = FULL, *, systemd: bool = False) -> validate.Rules:
    return validate.Rules(limits=limits, systemd_cgroup=systemd, runtime=lambda name: None)


def check(host: dict[str, Any], config: dict[str, Any] | None = None, limits: HostLimits = FULL) -> list[str]:
    parsed, settings = ContainerConfig.parse(config or {}), HostConfig.parse(host)
    validate.check_request(parsed, settings, rules(limits))
    validate.check_config(parsed)
    return validate.check_host_config(settings, rules(limits, systemd=True))[1]


M = 1 << 20


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ({"Memory": 4 * M}, "Minimum memory limit allowed is 6MB"),
        (
            {"Memory": 8 * M, "MemorySwap": 7 * M},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        ({"MemorySwap": 8 * M}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            {"Memory": 8 * M, "MemoryReservation": 9 * M},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"NanoCpus": 5 * 10**9}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (
            {"CpuPeriod": 10},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"CpusetCpus": "0,9"}, "Requested CPUs are not available - requested 0,9, available: 0-3"),
        ({"CpusetCpus": "3-1"}, "Invalid value 3-1 for cpuset cpus: invalid format: 3-1"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"IpcMode": "odd"}, "invalid IPC mode: odd"),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"UTSMode": "odd"}, "invalid UTS mode: odd"),
        ({"CgroupnsMode": "odd"}, "invalid cgroup namespace mode: odd"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"RestartPolicy": {"Name": "odd"}},
            "invalid restart policy: unknown policy 'odd'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'",
        ),
        ({"CapAdd": ["ODD"]}, 'invalid CapAdd: unknown capability: "CAP_ODD"'),
        ({"PortBindings": {"1;2": []}}, "invalid JSON: invalid port '1;2': invalid syntax"),
        ({"PortBindings": {"80-90/tcp": []}}, "invalid JSON: invalid port '80-90': invalid syntax"),
        ({"PortBindings": {"70000": []}}, "invalid JSON: invalid port '70000': value out of range"),
        ({"PortBindings": {"/tcp": []}}, "invalid JSON: invalid port '': value is empty"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "9-7"}]}}, 'invalid port specification: "9-7"'),
        ({"ExtraHosts": ["name"]}, 'bad format for add-host: "name"'),
        ({"ExtraHosts": ["name:nowhere"]}, 'invalid IP address in add-host: "nowhere"'),
        ({"Annotations": {"": "x"}}, "invalid Annotations: the empty string is not permitted as an annotation key"),
        (
            {"CgroupParent": "odd"},
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
        ),
        ({"Tmpfs": {"relative": ""}}, "invalid mount path: 'relative' mount path must be absolute"),
        ({"Isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        (
            {"NetworkMode": "container:x", "Dns": ["1.1.1.1"]},
            "conflicting options: dns and the network mode",
        ),
        (
            {"NetworkMode": "container:x", "PublishAllPorts": True},
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            {"NetworkMode": "container:"},
            "invalid network mode: invalid container format container:<name|id>",
        ),
        ({"CpuRealtimePeriod": 1000}, "Your kernel does not support CPU real-time scheduler"),
    ],
)
def test_invalid_host_config(host: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        check(host)
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID_ARGUMENT, sentence)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"WorkingDir": "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"ExposedPorts": {"a/tcp": {}}}, "invalid JSON: invalid port 'a': invalid syntax"),
        ({"ExposedPorts": {"9-7": {}}}, "invalid JSON: invalid port '9-7': invalid syntax"),
        ({"StopSignal": "ODD"}, "invalid signal: ODD"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Retries": -1}}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_invalid_config(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        check({}, config)
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID_ARGUMENT, sentence)


def test_ranges_of_ports_can_be_exposed() -> None:
    assert check({}, {"ExposedPorts": {"8000-8010/tcp": {}, "80": {}}}) == []


def test_unsupported_limits_are_discarded_with_a_warning() -> None:
    bare = HostLimits(unified=True, ncpu=1)
    host = HostConfig.parse(
        {"Memory": 64 * M, "MemorySwappiness": 10, "CpuShares": 5, "PidsLimit": 3, "OomKillDisable": True}
    )
    host, warnings = validate.check_host_config(host, rules(bare))
    assert len(warnings) == 5
    assert (host.memory, host.memory_swappiness, host.cpu_shares, host.pids_limit) == (0, None, 0, None)


def test_published_ports_on_the_host_network_give_a_warning() -> None:
    assert check({"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}) == [
        "Published ports are discarded when using host network mode"
    ]
