"""Foreign JSON: decoded as Go's encoding/json does, and every module that reads it uses ``jsontext``."""

import ast
import json
from pathlib import Path

import pytest

from engine.common import jsontext

ROOT = Path(__file__).resolve().parents[3]
# Modules that decode this project's own JSON: databases, messages between its processes, files of the package.
OWN_DATA = {
    "server/builder/cache/records.py",
    "engine/common/jsontext.py",
    "engine/common/layers/recipe.py",
    "server/networks/proxy_client.py",
    "server/images/store.py",
    "server/swarm/files.py",
    "server/swarm/founder.py",
    "server/swarm/founding.py",
    "server/ui/vendor.py",
    "server/swarm/model/codec.py",
    "engine/proxy/proxy.py",
    "server/containers/spec/seccomp.py",
    "server/containers/host/owners.py",
    "engine/shim/container/removal.py",
    "engine/shim/logs/opening.py",
    "engine/shim/protocol.py",
    "engine/shim/logs/remote/driver.py",
    "engine/supervisor/store/labels.py",
    "engine/supervisor/tasks/bundle.py",
    "engine/supervisor/tasks/orphans.py",
    "engine/common/system/fds.py",
    "server/builder/exporters/attachments.py",
    "server/containers/logs/format.py",
    "server/containers/model.py",
    "server/jobs/model.py",
    "server/networks/model.py",
    "server/networks/overlay/records.py",
    "server/volumes/base.py",
}
# Modules that decode the output of the host's programs.
HOST = {
    "server/networks/nftables/firewalld.py",
    "engine/shim/runtime/refusals.py",
    "server/system/features.py",
}
# The command wharf, which decodes the engine's answers and loads no module of the engine.
CLIENT = {"server/cli/client.py", "server/cli/commands.py"}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\uDC00x"', "\ufffdx"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud800\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ud800\u0041"', "\ufffdA"),
        (rb'"\\ud800"', "\\ud800"),
        (rb'"\\\ud800"', "\\\ufffd"),
        (rb'{"\udfff": [null, "\n\ud800"]}', {"\ufffd": [None, "\n\ufffd"]}),
        (b'"\xff"', "\ufffd"),
        (b'"\xe2\x82"', "\ufffd\ufffd"),  # one for each byte
        (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),  # a surrogate in UTF-8
        (b'"\xe2\x82\xac"', "\u20ac"),
        ('"\udcff"', "\ufffd\ufffd\ufffd"),
    ],
)
def test_strings_are_decoded_as_go_does(source: bytes | str, value: object) -> None:
    assert jsontext.loads(source) == value


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"1 2",
        rb'"\ud80"',
        rb'"\u"',
        b'"\x01"',
        b'{"a":"\xff"',
        b"\xff",
        b"[" * 100_000,
        '{"a"\xe9}',
        "'a'",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_invalid_json_is_refused(source: bytes | str) -> None:
    with pytest.raises(ValueError, match="line"):
        jsontext.loads(source)


def test_invalid_utf8_names_are_encoded() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(jsontext.dumps([{"Name": name}])) == [{"Name": "caf\ufffd"}]
    with pytest.raises(TypeError):
        jsontext.dumps({"a": object()})


def test_json_from_outside_has_one_decoder() -> None:
    found = set()
    for package in ("api_models", "engine", "server"):
        for path in (ROOT / package).rglob("*.py"):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Attribute)
                    and node.attr in ("load", "loads")
                    and isinstance(node.value, ast.Name)
                    and node.value.id in ("json", "orjson")
                ):
                    found.add(str(path.relative_to(ROOT)))
    assert found == OWN_DATA | HOST | CLIENT
