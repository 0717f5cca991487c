"""The daemon reads records of earlier versions and writes them back unchanged."""

import json
from pathlib import Path

from server.containers.model import Container

#: A record with a value of every kind: null, empty, set, in lists of objects and in maps.
RECORD = Path(__file__).with_name("golden") / "record.json"


def test_a_stored_record_is_the_same_after_a_restart() -> None:
    container = Container.from_doc(RECORD.read_bytes())
    stored, written = json.loads(RECORD.read_bytes()), json.loads(container.to_doc())
    for part in ("config", "host_config"):  # these may have fields that the stored record lacks
        assert written.pop(part).items() >= stored.pop(part).items()
    newer = [written.pop(name) for name in ("owner", "credentials", "gpus", "managed", "private_binds")]  # than it
    assert newer == ["", [], [], False, {}]
    assert written == stored
    assert container.host_config.memory == 64 << 20
    assert container.host_config.port_bindings is not None
    assert container.host_config.port_bindings["81/tcp"] is None
    assert container.networking["bridge"].aliases == ("web",)
