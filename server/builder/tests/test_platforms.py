"""The platforms for which binfmt_misc has an emulator."""

from pathlib import Path

import pytest

from server.builder.buildkit import platforms
from server.registry import oci

ARM64 = "7f454c460201010000000000000000000200b700"
S390X = "7f454c4602020100000000000000000000020016"


def entry(magic: str, *, state: str = "enabled", flags: str = "OCF", offset: int = 0) -> str:
    """Format an entry as the kernel does."""
    return f"{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset {offset}\nmagic {magic}\nmask ff\n"


def test_platforms_of_binfmt_misc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "BINFMT", tmp_path)
    alone = platforms.platforms()
    assert alone[0] == oci.host_platform()
    entries = {
        "register": "",
        "status": "enabled\n",
        "any-name": entry(ARM64),
        "qemu-s390x": entry(S390X, flags="F"),
        # without flag F, disabled, or not for ELF programs
        "qemu-riscv64": entry("7f454c460201010000000000000000000200f300", flags=""),
        "qemu-loongarch64": entry("7f454c4602010100000000000000000002000201", state="disabled"),
        "python3": entry("cb0d0d0a", flags="F"),
        "jar": "enabled\ninterpreter /usr/bin/jexec\nflags: F\nextension .jar\n",
        "short": entry("7f454c46"),
    }
    for name, text in entries.items():
        (tmp_path / name).write_text(text)
    found = [oci.format_platform(item) for item in platforms.platforms() if item not in alone]
    assert found == ["linux/arm64", "linux/s390x"]
