"""The documents that builds write: exported caches, histories, findings of checks."""

import hashlib
import re

import pytest

from engine.api.types import Descriptor
from server.builder.cache import cache_config
from server.builder.dockerfile import checks
from server.builder.dockerfile.errors import DockerfileError
from server.builder.dockerfile.parse import parse
from server.builder.plan import formatting
from server.builder.plan.steps import Layer, Result

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer(name: str) -> Layer:
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    return Layer(
        Descriptor(GZIP, digest, len(name)), "sha256:" + hashlib.sha256(digest.encode()).hexdigest(), 1234567891
    )


def test_cache_round_trip() -> None:
    base, one, two = layer("base"), layer("one"), layer("two")
    chain = [
        Result("base", "c0", (base,)),
        Result("k1", "c1", (base, one)),
        Result("k2", "c1", (base, one)),  # changed nothing
        Result("k3", "c2", (base, one, two)),
    ]
    data = cache_config.write([chain, chain[:2]])
    known = cache_config.read(data).own
    assert {key: item.layer for key, item in known.items()} == {"k1": one, "k2": None, "k3": two}
    assert cache_config.read_layers(data) == [base, one, two]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"layers":[{}],"records":[{"digest":"k","layers":[{"layer":7}]}]}']
)
def test_invalid_cache_is_empty(data: bytes) -> None:
    found = cache_config.read(data)
    assert not found.own
    assert not found.records


def test_health_checks_are_shown_as_go_shows_them() -> None:
    text = 'FROM x\nHEALTHCHECK --interval=90s --timeout=20ms --start-period=1h --retries=48 CMD ["a", "b c"]\n'
    item = parse(text).stages[0].instructions[0]
    assert formatting.healthcheck(item) == 'HEALTHCHECK &{["CMD" "a" "b c"] "1m30s" "20ms" "1h0m0s" "0s" \'0\'}'  # type: ignore[arg-type]


def test_checks_are_skipped_or_made_errors() -> None:
    warnings = parse("FROM x as a\nCMD y\n").warnings
    rules = {item.rule for item in warnings}
    assert {"FromAsCasing", "JSONArgsRecommended"} <= rules
    assert [item.rule for item in checks.config("skip=FromAsCasing").select(warnings)] == ["JSONArgsRecommended"]
    assert checks.config("skip=ALL;error=true").select(warnings) == []
    error = checks.config("error=true").error_for(warnings)
    assert error is not None
    assert error.message == "lint violation found for rules: FromAsCasing, JSONArgsRecommended"
    assert checks.config("error=true").error_for(()) is None
    assert checks.config("error=true", "error=false").error_for(warnings) is None
    for directive, asked, sentence in (
        ("foo=bar", "", 'failed to parse check options: invalid check option "foo"'),
        ("skip", "", 'failed to parse check options: invalid check option "skip"'),
        ("", "foo=1", 'failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option "foo"'),
        ("error=x", "", 'failed to parse check option "error=x": strconv.ParseBool: parsing "x": invalid syntax'),
    ):
        with pytest.raises(DockerfileError, match=re.escape(sentence)):
            checks.config(directive, asked)
