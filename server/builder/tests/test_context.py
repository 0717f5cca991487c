"""Build contexts: extraction, refused archives, and removal."""

import asyncio
import gzip
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.builder.contexts.contexts import Contexts
from server.builder.contexts.git import clone, is_git, repository

pytestmark = pytest.mark.root


def packed(files: Mapping[str, str], **links: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid = len(text), 1000
            archive.addfile(info, io.BytesIO(text.encode()))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def listed(root: Path) -> list[str]:
    assert all(path.lstat().st_uid == 0 for path in root.rglob("*"))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def opened(folder: Path, data: bytes, *, dockerfile: str = "") -> tuple[str, str, list[str]]:
    """Return the Dockerfile's text, its name and the files of the context; check that nothing is left afterwards."""

    async def work() -> tuple[str, str, list[str]]:
        async with Contexts(folder).open(pieces(data), "", dockerfile) as context:
            return context.dockerfile, context.name, listed(Path(context.root))

    try:
        return asyncio.run(work())
    finally:
        assert not folder.exists() or not list(folder.iterdir())


def test_files_and_dockerfile(tmp_path: Path) -> None:
    data = packed({"Dockerfile": "FROM a\n", "sub/file": "x"})
    for body in (data, gzip.compress(data)):
        assert opened(tmp_path / "c", body) == ("FROM a\n", "Dockerfile", ["Dockerfile", "sub", "sub/file"])


def test_ignored_dockerfile_is_read_and_then_gone(tmp_path: Path) -> None:
    data = packed({"Dockerfile": "FROM a\n", ".dockerignore": "Dockerfile\n.docker*\n", "kept": ""})
    assert opened(tmp_path / "c", data) == ("FROM a\n", "Dockerfile", ["kept"])


def test_an_ignored_dockerfile_is_not_deleted_outside_of_the_context(tmp_path: Path) -> None:
    """The name refers to a file of the context while it is read; outside the root it would name a file of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "D").write_text("the host's")
    files = {f"{outside}/D".lstrip("/"): "FROM a\n", ".dockerignore": "l\nl/D\n"}
    assert opened(tmp_path / "c", packed(files, l=str(outside)), dockerfile="l/D")[0] == "FROM a\n"
    assert (outside / "D").read_text() == "the host's"


def test_other_names(tmp_path: Path) -> None:
    assert opened(tmp_path / "c", packed({"dockerfile": "FROM a\n"}))[1] == "dockerfile"
    assert opened(tmp_path / "c", packed({"x/D": "FROM b\n"}), dockerfile="x/D")[0] == "FROM b\n"


@pytest.mark.parametrize(
    ("data", "dockerfile", "sentence"),
    [
        (packed({"x": ""}), "", "Cannot locate specified Dockerfile: Dockerfile"),
        (packed({"Dockerfile": ""}), "", "the Dockerfile (Dockerfile) cannot be empty"),
        (packed({"Dockerfile": "FROM a\n"}), "../D", "forbidden path outside the build context: ../D ()"),
        (packed({}, Dockerfile="/etc/hostname"), "", "Cannot locate specified Dockerfile: Dockerfile"),
        (b"neither tar nor anything" * 50, "", "invalid"),
    ],
)
def test_refused(tmp_path: Path, data: bytes, dockerfile: str, sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        opened(tmp_path / "c", data, dockerfile=dockerfile)
    assert sentence in caught.value.message
    assert not list(tmp_path.rglob("escaped"))


def test_names_from_the_top_are_in_the_context(tmp_path: Path) -> None:
    data = packed({"Dockerfile": "FROM a\n", "a/../over": "y", "/top": "z"})
    assert opened(tmp_path / "c" / "d", data) == ("FROM a\n", "Dockerfile", ["Dockerfile", "over", "top"])


def test_names_that_leave_the_context_are_refused(tmp_path: Path) -> None:
    for name in ("../Dockerfile", "a/../../over", "/../up"):
        with pytest.raises(WharfError, match=re.escape(f'invalid entry name "{name}"')) as caught:
            opened(tmp_path / "c" / "d", packed({"Dockerfile": "FROM a\n", name: "x"}))
        assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM top\n")
    (work / "sub/Dockerfile").write_text("FROM sub\n")
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@t"]
    for args in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "1"], ["branch", "other"]):
        subprocess.run([*git, *args], check=True, timeout=60)
    bare = tmp_path / "repo.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True, timeout=60)
    (bare / "git-daemon-export-ok").touch()

    # The daemon forbids file: repositories; the test allows them in place of a server.
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")

    def read(remote: str) -> str:
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        commit, folder = asyncio.run(clone(remote, str(root)))
        assert len(commit) == 40
        assert not (root / ".git").exists()
        return Path(folder, "Dockerfile").read_text()

    url = f"file://{bare}"
    assert read(url) == "FROM top\n"
    assert read(f"{url}#other:sub") == "FROM sub\n"
    assert read(f"{url}#main:../..") == "FROM top\n"  # the root directory is the limit
    for bad in ("#nosuchbranch", "#main:nothing"):
        with pytest.raises(WharfError) as caught:
            read(url + bad)
        assert caught.value.kind is Kind.INVALID_ARGUMENT


def test_what_is_a_repository() -> None:
    for remote in ("git://h/x", "git@h:x", "github.com/a/b", "https://h/x.git", "https://h/x.git#main:sub"):
        assert is_git(remote)
    for remote in ("https://h/x.tar.gz", "http://h/Dockerfile", "gitty"):
        assert not is_git(remote)
    with pytest.raises(WharfError):
        repository("https://h/x.git#--upload-pack=evil")
