"""The ways to extract an archive, and a target for it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.common.layers.tests.archives import Extract, extract_file, extract_stream


@pytest.fixture(params=[extract_stream, extract_file], ids=["stream", "file"])
def extract(request: pytest.FixtureRequest) -> Extract:
    way: Extract = request.param
    return way


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A target directory beside a file that must not change."""
    (tmp_path / "outside").write_text("untouched")
    place = tmp_path / "root"
    place.mkdir()
    yield place
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "root"]
    assert os.getcwd() != "/" or Path("/proc").exists()  # this process's own root has not changed
