"""Variants of architectures: which platforms run on another one, and this host's variant.

The order of preference is containerd's (``platforms.Only``), which dockerd applies to every choice from an index.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from engine.api.types import Platform

CPUINFO = Path("/proc/cpuinfo")
#: Processor features of each level of x86-64 (the System V ABI's supplement), in /proc/cpuinfo's names.
_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
#: The versions of arm (32 bits) that images name, newest first.
_ARM = ("v8", "v7", "v6", "v5")
#: The newest minor version of ARMv8, and that which ARMv9.0 contains.
_NEWEST_V8, _V8_OF_V9 = 9, 5


@functools.cache
def amd64_levels() -> tuple[str, ...]:
    """Return the variants of amd64 above v1 that this host's processor has, lowest first. Reads /proc."""
    flags: set[str] = set()
    with CPUINFO.open() as lines:
        for line in lines:
            if line.startswith("flags"):
                flags = set(line.partition(":")[2].split())
                break
    found: list[str] = []
    for variant, needed in _LEVELS:
        if not needed <= flags:
            break
        found.append(variant)
    return tuple(found)


# Bounded, because clients choose the platforms.
@functools.lru_cache(maxsize=64)
def runnable(platform: Platform) -> tuple[Platform, ...]:
    """Return the normalised platforms whose programs run on a normalised platform, best first."""
    variants = {"amd64": _amd64, "arm": _arm, "arm64": _arm64}.get(platform.architecture)
    if variants is None:
        return (platform,)
    order = [Platform(platform.os, architecture, variant) for architecture, variant in variants(platform.variant)]
    return tuple(dict.fromkeys((platform, *order)))


def _amd64(variant: str) -> Iterator[tuple[str, str]]:
    for level in range(_number(variant, 1), 1, -1):
        yield "amd64", f"v{level}"
    yield "amd64", ""  # v1
    yield "386", ""


def _arm(variant: str) -> Iterator[tuple[str, str]]:
    for version in range(_number(variant, 0), 4, -1):
        yield "arm", f"v{version}"


def _arm64(variant: str) -> Iterator[tuple[str, str]]:
    major, _, minor = variant.removeprefix("v").partition(".")
    newest = _number(minor, 0)
    if major == "9":
        for each in range(newest, -1, -1):
            yield "arm64", f"v9.{each}" if each else "v9"
        newest = min(newest + _V8_OF_V9, _NEWEST_V8)
    for each in range(newest, -1, -1):
        yield "arm64", f"v8.{each}" if each else ""
    for version in _ARM:
        yield "arm", version


def _number(text: str, default: int) -> int:
    """Return the number of a variant such as ``v3``. Unknown ones run only themselves: ``default``."""
    digits = text.removeprefix("v")
    return int(digits) if digits.isdigit() and len(digits) == 1 else default
