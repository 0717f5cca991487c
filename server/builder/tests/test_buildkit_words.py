"""The messages exchanged with BuildKit's clients: exporter options, definitions, error details."""

import pytest

from engine.common.errors import WharfError
from server.builder.exporters import export_options
from server.builder.jobs import inputs


def test_annotations_by_place_and_platform() -> None:
    found = export_options.read(
        "image",
        {
            "annotation.a": "1",
            "annotation-manifest[linux/amd64].b": "2",
            "annotation-index.c": "3",
            "annotation-manifest-descriptor.d.e": "4",
            "oci-mediatypes": "false",
        },
    )
    assert found.annotations_of("manifest", "linux/amd64") == {"a": "1", "b": "2"}
    assert found.annotations_of("manifest", "linux/arm64") == {"a": "1"}
    assert found.annotations_of("index") == {"c": "3"}
    assert found.annotations_of("manifest-descriptor") == {"d.e": "4"}
    assert not found.oci_types


@pytest.mark.parametrize(
    "attrs",
    [
        {"nope": "1"},
        {"compression": "estargz"},
        {"rewrite-timestamp": "perhaps"},
        {"annotation-index-descriptor.a": "b"},
    ],
)
def test_exporters_refuse_by_name(attrs: dict[str, str]) -> None:
    with pytest.raises(WharfError) as caught:
        export_options.read("image", attrs)
    assert any(word in caught.value.message for word in (*attrs, "index-descriptor"))


def test_a_definition_names_its_result() -> None:
    assert inputs.result_named(inputs.definition("ref-0-linux/amd64")) == "ref-0-linux/amd64"
    assert inputs.result_named(inputs.definition("r" * 200)) == "r" * 200
    assert inputs.result_named([b"\x1a\x10docker-image://x"]) == ""
