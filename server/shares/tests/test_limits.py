"""The checks against a role's limits, and their sentences."""

import pytest

from api_models.container import ContainerConfig
from api_models.resources import Resources
from engine.common.errors import Kind, WharfError
from server.access.policy import Role
from server.shares.limits import check_cpus, check_disk, check_labels
from server.shares.usage import Disk
from server.units import human_size


def test_the_disk_is_refused_with_what_uses_it() -> None:
    disk = Disk({"web": 3_000_000, "job": 500_000}, {"data": 2_000_000}, {})
    check_disk(Role(), disk)
    check_disk(Role(disk=5_500_001), disk)
    with pytest.raises(WharfError) as caught:
        check_disk(Role(disk=5_500_000), disk)
    assert caught.value.kind is Kind.PERMISSION_DENIED
    assert caught.value.message == (
        "the policy allows you 5.5MB of disk, and 5.5MB are used: "
        "containers 3.5MB (web 3MB, job 500kB); volumes 2MB (data 2MB)"
    )


def test_a_refusal_names_the_largest_only() -> None:
    with pytest.raises(WharfError, match=r"\(c7 7B, c6 6B, c5 5B, c4 4B, c3 3B and 2 more\)"):
        check_disk(Role(disk=1), Disk({f"c{number}": number for number in range(1, 8)}))


@pytest.mark.parametrize(
    "wanted", [Resources(nano_cpus=1_600_000_000), Resources(cpu_quota=160_000), Resources(cpu_quota=16, cpu_period=10)]
)
def test_more_cpus_than_the_role_has(wanted: Resources) -> None:
    check_cpus(Role(), wanted)
    check_cpus(Role(cpus=1.6), wanted)
    with pytest.raises(WharfError, match=r"from 0\.01 to 1\.50, as the policy allows you no more"):
        check_cpus(Role(cpus=1.5), wanted)


def test_the_label_keep() -> None:
    kept = ContainerConfig(labels={"wharf.keep": ""})
    check_labels(Role(keep=True), kept)
    check_labels(Role(), ContainerConfig(labels={"wharf.keep": "false"}))
    with pytest.raises(WharfError, match=r"label wharf\.keep"):
        check_labels(Role(), kept)


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (32 << 30, "34.36GB")])
def test_sizes(count: int, text: str) -> None:
    assert human_size(count) == text
