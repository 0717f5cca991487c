"""Filters: both forms, and matching as in dockerd."""

import json

import pytest

from api_models.filters import Filters
from engine.common import limits
from engine.common.errors import WharfError


def test_both_spellings() -> None:
    for text in ('{"label":{"a=b":true,"c":true}}', '{"label":["a=b","c"]}'):
        filters = Filters.parse(text)
        assert filters.get("label") == ("a=b", "c")
        assert filters.labels("label", {"a": "b", "c": ""})
        assert not filters.labels("label", {"a": "x", "c": ""})
        assert not filters.labels("label", None)
    assert len(Filters.parse("")) == 0
    assert Filters.parse("{}").labels("label", None)


@pytest.mark.parametrize("text", ["{", "[]", '{"a":"b"}', '{"a":{"b":1}}', '{"a":[1]}', "3"])
def test_malformed(text: str) -> None:
    with pytest.raises(WharfError, match=r"^invalid filter$"):
        Filters.parse(text)


def test_unknown_key() -> None:
    with pytest.raises(WharfError, match=r"^invalid filter 'x'$"):
        Filters.parse('{"x":["y"]}').validate(("name",))


def test_matching() -> None:
    filters = Filters({"name": ["^web", "db"], "id": ["abc"], "bad": ["("]})
    assert filters.match("name", "web-1")
    assert filters.match("name", "my-db")
    assert not filters.match("name", "my-web")
    assert not filters.match("bad", "x")
    assert filters.match("other", "x")
    assert filters.fuzzy("id", "abcdef")
    assert not filters.exact("id", "abcdef")
    assert Filters({"label!": ["a"]}).labelled({"b": ""})
    assert not Filters({"label!": ["a"]}).labelled({"a": ""})


def test_flags() -> None:
    assert Filters({"dangling": ["1"]}).flag("dangling", default=False)
    assert not Filters({"dangling": ["false"]}).flag("dangling", default=True)
    assert Filters().flag("dangling", default=True)
    for values, message in ((["maybe"], r"=\[maybe\]"), (["0", "1"], r"=\[0 1\]"), ([], "")):
        with pytest.raises(WharfError, match=f"^invalid filter 'dangling{message}'$"):
            Filters({"dangling": values}).flag("dangling", default=False)


def test_many_values() -> None:
    values = [f"{number:05}" for number in range(limits.FILTER_VALUES)]
    filters = Filters.parse(json.dumps({"id": values}))
    assert filters.fuzzy("id", "00017-and-more")
    assert filters.fuzzy("id", "00017")
    assert not filters.fuzzy("id", "0001")
    assert not filters.fuzzy("id", "x00017")
    assert filters.exact("id", "00017")
    with pytest.raises(
        WharfError, match=r"the number of values in the filters exceeds the limit FILTER_VALUES \(10000\)"
    ):
        Filters.parse(json.dumps({"id": values, "name": ["a"]}))
