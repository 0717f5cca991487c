"""The use of GPUs from files as the kernel writes them (Documentation/gpu/drm-usage-stats.rst)."""

from pathlib import Path

import pytest

from engine.common import limits
from server.gpus.use import drm
from server.gpus.use.drm import Clients

SECOND = 10**9


def descriptor(proc: Path, pid: int, fd: int, text: str = "", link: str = "/dev/dri/renderD128") -> None:
    for directory in ("fd", "fdinfo"):
        (proc / str(pid) / directory).mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "fd" / str(fd)).unlink(missing_ok=True)
    (proc / str(pid) / "fd" / str(fd)).symlink_to(link)
    (proc / str(pid) / "fdinfo" / str(fd)).write_text(f"pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t284\n{text}")


def amd(client: int, compute: int) -> str:
    return (
        f"drm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t0000:03:00.0\npasid:\t32770\n"
        "drm-memory-vram:\t1024 KiB\ndrm-engine-capacity-compute:\t4\n"
        f"drm-engine-gfx:\t0 ns\ndrm-engine-compute:\t{compute} ns\n"
    )


def xe(busy: int, total: int) -> str:
    return (
        "drm-driver:\txe\ndrm-client-id:\t7\ndrm-pdev:\t0000:00:02.0\n"
        f"drm-cycles-ccs:\t{busy}\ndrm-total-cycles-ccs:\t{total}\ndrm-engine-capacity-ccs:\t1\n"
    )


def read(root: Path, *pids: int) -> Clients:
    return drm.read(pids, proc=root / "proc", kfd=root / "kfd")


def test_time_of_engines(tmp_path: Path) -> None:
    descriptor(tmp_path / "proc", 10, 3, amd(1, 5 * SECOND))
    before = read(tmp_path, 10)
    assert before.unknown == ""
    descriptor(tmp_path / "proc", 10, 3, amd(1, 7 * SECOND))
    after = read(tmp_path, 10)
    assert after.part(before.counters, 4 * SECOND) == 0.5
    assert after.part(after.counters, 4 * SECOND) == 0.0
    # Less than before: the driver catches up later.
    assert before.part(after.counters, SECOND) == 0.0


def test_a_client_counts_once_and_a_new_one_from_its_beginning(tmp_path: Path) -> None:
    descriptor(tmp_path / "proc", 10, 3, amd(1, SECOND))
    descriptor(tmp_path / "proc", 10, 4, amd(1, SECOND))
    descriptor(tmp_path / "proc", 11, 3, amd(1, SECOND))
    assert read(tmp_path, 10, 11).part({}, SECOND) == 1.0
    descriptor(tmp_path / "proc", 11, 5, amd(2, SECOND))
    assert read(tmp_path, 10, 11).part(read(tmp_path, 10).counters, SECOND) == 1.0


def test_cycles_of_xe(tmp_path: Path) -> None:
    descriptor(tmp_path / "proc", 10, 3, xe(0, 10_000))
    idle = read(tmp_path, 10)
    assert (idle.unknown, idle.part({}, SECOND)) == ("", 0.0)
    descriptor(tmp_path / "proc", 10, 3, xe(250, 11_000))
    assert read(tmp_path, 10).part(idle.counters, SECOND) == 0.25
    # A client that is new and has computed has used the GPU, however long its engine exists.
    assert read(tmp_path, 10).part({}, SECOND) == 1.0


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("", "the driver reports no clients"),
        ("drm-driver:\ti915\ndrm-client-id:\t1\n", "the driver i915 reports no use by client"),
        ("drm-driver:\tmsm\ndrm-cycles-gpu:\t9\n", "the driver msm reports no use by client"),
    ],
)
def test_a_driver_without_times(tmp_path: Path, text: str, unknown: str) -> None:
    descriptor(tmp_path / "proc", 10, 3, text)
    assert read(tmp_path, 10).unknown == unknown


def test_other_files_and_processes_that_have_exited(tmp_path: Path) -> None:
    descriptor(tmp_path / "proc", 10, 3, amd(1, SECOND), link="/home/dev/dri/renderD128")
    descriptor(tmp_path / "proc", 10, 4, link="socket:[1]")
    assert read(tmp_path, 10, 4711) == Clients()
    descriptor(tmp_path / "proc", 10, 5, amd(1, SECOND))
    (tmp_path / "proc/10/fdinfo/5").unlink()
    assert read(tmp_path, 10) == Clients()


def test_processes_of_the_compute_driver(tmp_path: Path) -> None:
    """ROCm's queues are in no time of engines."""
    stats = tmp_path / "kfd/10/stats_4660"
    stats.mkdir(parents=True)
    assert read(tmp_path, 10).unknown == "the driver amdgpu reports no occupancy of compute units"
    (stats / "cu_occupancy").write_text("0\n")
    assert read(tmp_path, 10) == Clients()
    other = tmp_path / "kfd/10/stats_4661"
    other.mkdir()
    (other / "cu_occupancy").write_text("104\n")
    assert read(tmp_path, 10) == Clients(computing=True)
    assert read(tmp_path, 11) == Clients()


def test_more_files_than_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GPU_DESCRIPTORS", 2)
    for fd in range(3):
        descriptor(tmp_path / "proc", 10, fd, link="/dev/null")
    assert read(tmp_path, 10).unknown == "the processes have more than 2 files (limit GPU_DESCRIPTORS)"
