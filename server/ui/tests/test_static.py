"""The files of the page: vendored libraries are what their packages have, and nothing is loaded from elsewhere."""

import re
from pathlib import Path

from server.ui import vendor

STATIC = Path(vendor.ROOT).parent


def test_vendored_files_have_their_digests_and_licences() -> None:
    listed = {"vendor.json"}
    for package in vendor.table():
        files = package["files"]
        assert any(entry["file"].endswith(".LICENSE") for entry in files), package["package"]
        for entry in files:
            assert vendor.digest(vendor.ROOT / entry["file"]) == entry["sha256"], entry["file"]
            listed.add(entry["file"])
    assert listed == {file.name for file in vendor.ROOT.iterdir()}


def test_the_own_files_name_no_other_server() -> None:
    for file in (*STATIC.glob("*.*"), *(STATIC.parent / "templates").iterdir()):
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?|wss?)://[a-z]", text), file
        assert "unsafe" not in text
        assert "eval(" not in text
        assert "innerHTML" not in text, file


def test_each_imported_script_exists() -> None:
    for file in STATIC.glob("*.js"):
        for name in re.findall(r'from "(/static/[^"]+)"', file.read_text()):
            assert (STATIC.parent / name.lstrip("/")).exists(), (file, name)
