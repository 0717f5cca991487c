"""containerd's filter language: its own examples, and filters that it refuses."""

from collections.abc import Mapping, Sequence

import pytest

from engine.api.filters import Fields, compile_all, in_labels
from engine.common.errors import Kind, WharfError


def record(name: str, labels: Mapping[str, str]) -> Fields:
    def field(path: Sequence[str]) -> str | None:
        if path[0] == "name":
            return name
        if path[0] == "labels":
            return in_labels(path[1:], labels)
        return None

    return field


A = record("docker.io/library/a:1", {"kind": "x", "a.b/c": "dotted", "quote": 'say "hi"'})
B = record("b", {})


@pytest.mark.parametrize(
    ("filters", "a", "b"),
    [
        ([], True, True),
        ([""], True, True),
        (["name==b", ""], True, True),
        (["name==docker.io/library/a:1"], True, False),
        (['name=="docker.io/library/a:1"'], True, False),
        (["name!=b"], True, False),
        (["labels.kind"], True, False),
        (["labels.kind!=x"], False, True),
        (["labels.kind==x,name==b"], False, False),
        (["labels.kind==x", "name==b"], True, True),
        (['labels."a.b/c"==dotted'], True, False),
        (["name~=/^docker.io\\/library/"], True, False),
        (["name~=|library/a|"], True, False),
        (['name~="^(a|b)$"'], False, True),
        (["name~=lib"], True, False),
        (['labels.quote=="say \\"hi\\""'], True, False),
        (["labels.kind == x , name"], True, False),
        (["unknown"], False, False),
        (["unknown!=x"], True, True),
        (["unknown~=/^$/"], True, True),
        (["name~=/(/"], False, False),
    ],
)
def test_matches(filters: list[str], a: bool, b: bool) -> None:
    match = compile_all(filters)
    assert (match(A), match(B)) == (a, b)


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "name=",
        "name==",
        "name=b",
        "==b",
        "name==b,",
        "name==a b",
        "name==/b/",
        'name=="b',
        "a..b",
        "~",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(WharfError) as caught:
        compile_all([text])
    assert caught.value.kind is Kind.INVALID_ARGUMENT


def test_errors_name_the_position() -> None:
    for text, said in (
        ("type!==x", '[type >|!|< ==x]: unsupported operator "!=="'),
        ("type==a b", "[type==a >| |< b]: unexpected input:  "),
    ):
        with pytest.raises(WharfError) as caught:
            compile_all([text])
        assert caught.value.message == f"filters: parse error: {said}"
