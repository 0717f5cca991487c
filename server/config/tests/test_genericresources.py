"""Resources that services of a swarm can reserve."""

import json
from pathlib import Path

import pytest

from server.config import ConfigError, load
from server.config.genericresources import parse_generic_resources


def test_numbers_and_named_units() -> None:
    assert parse_generic_resources(()) is None
    assert parse_generic_resources(("ssd=3", "fpga=a", "gpu = GPU-1", "fpga=b")) == [
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
        {"NamedResourceSpec": {"Kind": "fpga", "Value": "a"}},
        {"NamedResourceSpec": {"Kind": "fpga", "Value": "b"}},
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "GPU-1"}},
    ]


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (["a"], "incorrect term a, missing '=' or malformed expression"),
        (["a=b=c"], "incorrect term a=b=c, missing '=' or malformed expression"),
        (["a=-1"], "cannot ask for negative resource a"),
        (["a=1", "a=b"], "mixed discrete and named resources in expression 'a=[1 b]'"),
    ],
)
def test_errors_are_found_at_the_start(tmp_path: Path, terms: list[str], words: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"node-generic-resources": terms}))
    with pytest.raises(ConfigError) as raised:
        load(["--config-file", str(file)])
    assert str(raised.value).endswith(f"could not parse GenericResource: {words}")


def test_flags(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    flags = ("--node-generic-resource", "a=1", "--node-generic-resource=b=x")
    config, _ = load(["--config-file", str(tmp_path / "daemon.json"), *flags])
    assert config.node_generic_resources == ("a=1", "b=x")
