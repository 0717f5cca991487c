"""Marks of fields and query parameters, and changes of behaviour, at the versions before and after the change."""

from typing import Any

import pytest

from api_models import changes
from api_models.base import Model
from api_models.container import ContainerInspect, CreateRequest, UpdateRequest
from api_models.image import ImageInspect
from api_models.network import NetworkInspect, NetworkSummary
from api_models.record import body_of, freeze
from api_models.supported import Version
from api_models.versions import Fixed, QueryMark, Since, accept, fills, shape
from engine.common.errors import WharfError


@pytest.mark.parametrize(
    ("mark", "version", "given", "seen"),
    [
        (Since((1, 42)), (1, 41), ["KILL"], []),
        (Since((1, 42)), (1, 42), ["KILL"], ["KILL"]),
        (Since((1, 42)), (1, 42), [], []),
        (Fixed((1, 42), "1"), (1, 41), ["0"], ["1"]),
        (Fixed((1, 42), "1"), (1, 41), [], ["1"]),
        (Fixed((1, 42), "1"), (1, 42), ["0"], ["0"]),
    ],
)
def test_query_parameters(mark: QueryMark, version: Version, given: list[str], seen: list[str]) -> None:
    assert mark.values(given, version) == seen


@pytest.mark.parametrize(("version", "full"), [((1, 27), True), ((1, 28), False), ((1, 51), False)])
def test_a_list_of_networks_has_no_containers_since_1_28(version: Version, full: bool) -> None:
    assert fills(NetworkSummary, "containers", version) is full
    assert fills(NetworkInspect, "containers", version)
    shown = shape(NetworkSummary, {"Containers": {"c": {}}}, version)
    assert shown["Containers"] == ({"c": {}} if full else {})


@pytest.mark.parametrize(("version", "shown"), [((1, 47), False), ((1, 48), True)])
def test_a_network_tells_of_ipv4_since_1_48(version: Version, shown: bool) -> None:
    for schema in (NetworkInspect, NetworkSummary):
        assert ("EnableIPv4" in shape(schema, {"EnableIPv4": True}, version)) is shown


def test_an_image_without_a_date_had_gos_zero_time() -> None:
    assert shape(ImageInspect, {}, (1, 43))["Created"] == "0001-01-01T00:00:00Z"
    assert shape(ImageInspect, {"Created": "now"}, (1, 43))["Created"] == "now"
    assert "Created" not in shape(ImageInspect, {}, (1, 44))


@pytest.mark.parametrize(
    ("version", "own"),
    [((1, 44), ["web", "c" * 12, "host"]), ((1, 45), ["web"])],
)
def test_own_names_were_aliases(version: Version, own: list[str]) -> None:
    networks: dict[str, dict[str, Any]] = {
        "mine": {"Aliases": ["web"], "GwPriority": 1},
        "bridge": {"Aliases": None},
    }
    document = {"Id": "c" * 64, "Config": {"Hostname": "host"}, "NetworkSettings": {"Networks": networks}}
    shape(ContainerInspect, document, version)
    assert networks["mine"] == {"Aliases": own}
    assert networks["bridge"]["Aliases"] is None


def accepted(model: Model, version: Version) -> Any:
    accept(model, version)
    return model


@pytest.mark.parametrize(
    ("version", "read_only", "given", "seen"),
    [
        ((1, 43), True, False, True),
        ((1, 43), False, True, False),
        ((1, 44), True, False, False),
        ((1, 44), True, True, True),
    ],
)
def test_read_only_binds_were_so_at_the_top_only(version: Version, read_only: bool, given: bool, seen: bool) -> None:
    mount = {"Type": "bind", "ReadOnly": read_only, "BindOptions": {"ReadOnlyNonRecursive": given}}
    body = body_of(CreateRequest).model_validate({"Image": "i", "HostConfig": {"Mounts": [mount]}})
    assert accepted(body, version).host_config.mounts[0].bind_options.read_only_non_recursive is seen


@pytest.mark.parametrize(("version", "seen"), [((1, 39), None), ((1, 40), 5)])
def test_an_update_has_a_limit_of_processes_since_1_40(version: Version, seen: int | None) -> None:
    assert accepted(body_of(UpdateRequest).model_validate({"PidsLimit": 5}), version).pids_limit == seen


@pytest.mark.parametrize(
    ("field", "body"),
    [
        *((f".{name}", {name: "true"}) for name in ("Cmd", "Entrypoint", "Shell")),
        *((f".HostConfig.{name}", {"HostConfig": {name: "ALL"}}) for name in ("CapAdd", "CapDrop")),
    ],
)
def test_a_string_was_an_array_of_one_element(field: str, body: dict[str, Any]) -> None:
    model = body_of(CreateRequest).model_validate({"Image": "busybox", **body})
    accept(model, (1, 51))
    with pytest.raises(WharfError) as refused:
        accept(model, (1, 52))
    assert refused.value.message == (
        f"invalid JSON: json: cannot unmarshal string into Go struct field {field} of type []string"
    )
    listed = {
        key: [value] if isinstance(value, str) else {k: [v] for k, v in value.items()} for key, value in body.items()
    }
    other = body_of(CreateRequest).model_validate({"Image": "busybox", **listed})
    accept(other, (1, 52))
    assert freeze(CreateRequest, other) == freeze(CreateRequest, model)


def test_every_change_has_a_version_in_which_it_came() -> None:
    found = [change for change in vars(changes).values() if isinstance(change, changes.Change)]
    assert found
    for change in found:
        major, minor = change.since
        assert change.within((major, minor))
        assert not change.within((major, minor - 1))
