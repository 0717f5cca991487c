"""Members that elect their leader quickly, and don't wait for the disk."""

import pytest

from engine.common.system import run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"HEARTBEAT_INTERVAL": "50", "ELECTION_TIMEOUT": "250", "UNSAFE_NO_FSYNC": "true"}
    variables = {f"ETCD_{name}": value for name, value in options.items()}
    monkeypatch.setattr(run, "DEFAULT_ENV", {**run.DEFAULT_ENV, **variables})
