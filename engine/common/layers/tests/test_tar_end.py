"""The end of archives is found however they are split into pieces; data inside an archive is never taken for its
end."""

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from engine.common.layers.tar_end import TarEnd

MARK = 1024


def kept(data: bytes, source: random.Random) -> bytes:
    """The bytes that a ``TarEnd`` keeps, given in pieces of any size."""
    end, found, at = TarEnd(), bytearray(), 0
    while at < len(data):
        piece = data[at : at + int(10 ** source.uniform(0, 5.5))]
        found += piece[: end.archive_bytes(piece)]
        at += len(piece)
    return bytes(found)


def archive(form: int) -> bytes:
    """All kinds of entries, long names, zeros in the middle and at the end of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers={"comment": "all"} if form == 2 else {}) as made:
        for name, data in {
            "zeros": bytes(50_000),
            "d" * 90 + "/" + "n" * 120: b"x" * 513,
            "ends with zeros": os.urandom(1000) + bytes(5000),
            "empty": b"",
            "last": bytes(4096),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"kind {kind!r}")
            info.type, info.linkname = kind, "zeros" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            made.addfile(info)
        end = made.offset
    return out.getvalue()[: end + MARK]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_bytes_after_the_end(form: int) -> None:
    source = random.Random(form)
    if form == tarfile.USTAR_FORMAT:
        whole = b"".join(archive_of_short_names())
    else:
        whole = archive(form)
    for behind in (b"", bytes(9216), bytes(300_000), b"garbage" * 1000, bytes(700) + b"x"):
        for _ in range(5):
            assert kept(whole + behind, source) == whole
    # without the mark, or with half of it, all bytes belong to the archive
    for cut in (512, 1024, 1025, 5000):
        assert kept(whole[:-cut], source) == whole[:-cut]


def archive_of_short_names() -> list[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        info = tarfile.TarInfo("f")
        info.size = 3000
        made.addfile(info, io.BytesIO(bytes(3000)))
        end = made.offset
    return [out.getvalue()[: end + MARK]]


def test_invalid_archives() -> None:
    source = random.Random(1)
    for data in (os.urandom(100_000), b"words\n" * 500, bytes(512) + os.urandom(5000), bytes(511)):
        assert kept(data, source) == data


@pytest.mark.parametrize("arguments", [["--format=gnu"], ["--format=pax", "--sparse-version=0.1"], ["--format=pax"]])
def test_sparse_files(tmp_path: Path, arguments: list[str]) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for index in range(60):
            file.seek(index * 100_000)
            file.write(b"data")
        file.truncate(10_000_000)
    (tmp_path / "after").write_bytes(bytes(2000))
    argv = ["tar", "--sparse", *arguments, "-b", "1", "-C", str(tmp_path), "-cf", "-", "holes", "after"]
    whole = subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout
    assert kept(whole + bytes(100_000), random.Random(3)) == whole


def test_a_size_only_in_pax_records() -> None:
    """Files of more than 8 GiB have such records; the size field then contains anything."""
    data = os.urandom(5000)
    info = tarfile.TarInfo("f")
    info.size = len(data)
    info.pax_headers = {"size": str(len(data))}
    head = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    field = len(head) - 512 + 124
    head[field : field + 12] = b"00000000000\0"
    checksum = len(head) - 512 + 148
    head[checksum : checksum + 8] = b" " * 8
    head[checksum : checksum + 8] = b"%06o\0 " % sum(head[-512:])
    whole = bytes(head) + data + bytes(-len(data) % 512) + bytes(MARK)
    assert kept(whole + bytes(3000), random.Random(4)) == whole
