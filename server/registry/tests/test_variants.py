"""The platforms that run on another one, in containerd's order."""

from pathlib import Path

import pytest

from engine.api.types import Platform
from server.registry import oci, variants


def shown(text: str) -> list[str]:
    return [oci.format_platform(each) for each in variants.runnable(oci.parse_platform(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64 linux/386"),
        ("linux/amd64/v1", "linux/amd64 linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
        ("linux/arm", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
        ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm64/v8.1", "linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64 windows/386"),
    ],
)
def test_order(text: str, expected: str) -> None:
    assert shown(text) == expected.split()


def test_arm_9() -> None:
    """ARMv9.1 contains ARMv9 and ARMv8.6."""
    assert shown("linux/arm64/v9.1")[:4] == [
        "linux/arm64/v9.1",
        "linux/arm64/v9",
        "linux/arm64/v8.6",
        "linux/arm64/v8.5",
    ]


def test_rank() -> None:
    wanted = Platform("linux", "amd64", "v3")
    order = [oci.rank(wanted, Platform("linux", "amd64", variant)) for variant in ("v3", "v2", "", "v4")]
    assert order == [0, 1, 2, None]


@pytest.mark.parametrize(
    ("flags", "levels"),
    [
        ("sse4_1 sse4_2 ssse3 cx16 popcnt", ()),
        ("sse4_1 sse4_2 ssse3 cx16 popcnt lahf_lm avx avx2", ("v2",)),
        ("sse4_1 sse4_2 ssse3 cx16 popcnt lahf_lm avx avx2 bmi1 bmi2 f16c fma abm movbe", ("v2", "v3")),
    ],
)
def test_levels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, levels: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: sse4_1\n\n")
    monkeypatch.setattr(variants, "CPUINFO", tmp_path / "cpuinfo")
    assert variants.amd64_levels.__wrapped__() == levels
