"""The documents name existing paths: a test fails for a moved module whose path a document still names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PATH = re.compile(r"(?<![\w/.-])(?:server|engine|api_models|compat_tests|deploy)/[\w./*<>-]+")


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE", "deploy/README.md", "compat_tests/README.md"]
)
def test_paths_exist(name: str) -> None:
    found = {path.rstrip(".:/") for path in _PATH.findall((ROOT / name).read_text())}
    assert [path for path in sorted(found) if not any(ROOT.glob(re.sub("<[a-z]+>", "*", path)))] == []
