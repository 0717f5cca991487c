"""The models decode JSON as dockerd does, with its error sentences, and encode what its clients expect."""

import json
from typing import Any

import pytest

from api_models.base import Model
from api_models.container import ContainerSummary, CreateRequest, HostConfig
from api_models.decode import decode
from api_models.exec import ExecCreateRequest
from api_models.gojson import explain
from api_models.image import ImageInspect, ImageSummary
from api_models.network import EndpointIPAMConfig, EndpointSettings, NetworkCreateRequest
from api_models.record import Record, body_of, freeze, wire
from api_models.resources import DeviceMapping
from api_models.supported import Version
from api_models.swarm.service import ServiceMode
from api_models.system import DiskUsage, Info
from api_models.versions import accept, shape
from api_models.volume import VolumeCreateRequest
from engine.common import limits
from engine.common.errors import Kind, WharfError

# Recorded from dockerd 26.1.5: body → its message.
WRONG = [
    (CreateRequest, '{"Image":1}', "number into Go struct field ContainerConfigWrapper.Config.Image of type string"),
    (
        CreateRequest,
        '{"HostConfig":{"Memory":"x"}}',
        "string into Go struct field HostConfig.HostConfig.Resources.Memory of type int64",
    ),
    (
        CreateRequest,
        '{"HostConfig":3}',
        "number into Go struct field ContainerConfigWrapper.HostConfig of type container.HostConfig",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"Mounts":[{"BindOptions":{"Propagation":3}}]}}',
        "number into Go struct field BindOptions.HostConfig.Mounts.BindOptions.Propagation of type mount.Propagation",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"Memory":1.5}}',
        "number 1.5 into Go struct field HostConfig.HostConfig.Resources.Memory of type int64",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"BlkioWeight":70000}}',
        "number 70000 into Go struct field HostConfig.HostConfig.Resources.BlkioWeight of type uint16",
    ),
    (CreateRequest, '{"Env":[1]}', "number into Go struct field ContainerConfigWrapper.Config.Env of type string"),
    (
        CreateRequest,
        '{"Labels":{"a":1}}',
        "number into Go struct field ContainerConfigWrapper.Config.Labels of type string",
    ),
    (CreateRequest, "[]", "array into Go value of type runconfig.ContainerConfigWrapper"),
    (CreateRequest, '{"Cmd":3}', "number into Go struct field ContainerConfigWrapper.Config.Cmd of type string"),
    (
        CreateRequest,
        '{"ExposedPorts":[]}',
        "array into Go struct field ContainerConfigWrapper.Config.ExposedPorts of type nat.PortSet",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"PortBindings":{"80/tcp":{}}}}',
        "object into Go struct field HostConfig.HostConfig.PortBindings of type []nat.PortBinding",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}',
        "number into Go struct field PortBinding.HostConfig.PortBindings.HostPort of type string",
    ),
    (
        CreateRequest,
        '{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":3}}}}',
        "number into Go struct field EndpointSettings.NetworkingConfig.EndpointsConfig.IPAMConfig"
        " of type network.EndpointIPAMConfig",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"RestartPolicy":{"Name":3}}}',
        "number into Go struct field RestartPolicy.HostConfig.RestartPolicy.Name of type container.RestartPolicyMode",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"Ulimits":[{"Soft":"3"}]}}',
        "string into Go struct field Ulimit.HostConfig.Resources.Ulimits.Soft of type int64",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"ConsoleSize":[3,"3"]}}',
        "string into Go struct field HostConfig.HostConfig.ConsoleSize of type uint",
    ),
    (
        CreateRequest,
        '{"Healthcheck":{"Interval":"3s"}}',
        "string into Go struct field HealthcheckConfig.Config.Healthcheck.Interval of type time.Duration",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"DeviceRequests":[{"Capabilities":["gpu"]}]}}',
        "string into Go struct field DeviceRequest.HostConfig.Resources.DeviceRequests.Capabilities of type []string",
    ),
    (NetworkCreateRequest, '{"Name":3}', "number into Go struct field NetworkCreateRequest.Name of type string"),
    (
        NetworkCreateRequest,
        '{"Name":"x","IPAM":{"Config":{}}}',
        "object into Go struct field IPAM.NetworkCreate.IPAM.Config of type []network.IPAMConfig",
    ),
    (
        VolumeCreateRequest,
        '{"DriverOpts":{"a":3}}',
        "number into Go struct field CreateOptions.DriverOpts of type string",
    ),
    (
        CreateRequest,
        '{"Volumes":[]}',
        "array into Go struct field ContainerConfigWrapper.Config.Volumes of type map[string]struct {}",
    ),
    (
        CreateRequest,
        '{"Volumes":{"/a":1}}',
        "number into Go struct field ContainerConfigWrapper.Config.Volumes of type struct {}",
    ),
    (CreateRequest, '{"Cmd":[1]}', "array into Go struct field ContainerConfigWrapper.Config.Cmd of type string"),
    (
        CreateRequest,
        '{"HostConfig":{"BlkioDeviceReadBps":{}}}',
        "object into Go struct field HostConfig.HostConfig.Resources.BlkioDeviceReadBps"
        " of type []*blkiodev.ThrottleDevice",
    ),
    (
        CreateRequest,
        '{"HostConfig":{"Mounts":[{"TmpfsOptions":{"Mode":-1}}]}}',
        "number -1 into Go struct field TmpfsOptions.HostConfig.Mounts.TmpfsOptions.Mode of type fs.FileMode",
    ),
    (ExecCreateRequest, '{"Cmd":"x"}', "string into Go struct field ExecConfig.Cmd of type []string"),
]


@pytest.mark.parametrize(("model", "body", "sentence"), WRONG)
def test_wrong_types_are_refused_in_dockerds_words(model: type[Record], body: str, sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        decode(body_of(model), body.encode())
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert caught.value.message == f"invalid JSON: json: cannot unmarshal {sentence}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "invalid JSON: EOF"),
        (b'{"a', "invalid JSON: unexpected EOF"),
        (b"nul", "invalid JSON: unexpected EOF"),
        (b"{} x", "unexpected content after JSON"),
        (b"{}{}", "unexpected content after JSON"),
        (b'{"a":01}', "invalid JSON: invalid character '1' after object key:value pair"),
        (b"{a}", "invalid JSON: invalid character 'a' looking for beginning of object key string"),
        (b"[1 2]", "invalid JSON: invalid character '2' after array element"),
        (b'"\x01"', "invalid JSON: invalid character '\\x01' in string literal"),
        (b"NaN", "invalid JSON: invalid character 'N' looking for beginning of value"),
        (b"[" * 20_000, "invalid JSON: exceeded max depth"),
    ],
)
def test_bad_json_is_explained_as_go_does(body: bytes, message: str) -> None:
    with pytest.raises(WharfError) as caught:
        read(body)
    assert caught.value.message == message


def read(body: bytes) -> CreateRequest:
    return freeze(CreateRequest, decode(body_of(CreateRequest), body))


def test_keys_of_several_words_match_in_any_case() -> None:
    endpoint = EndpointSettings.parse({"ipaddress": "192.0.2.1", "IPAMCONFIG": {"ipv4address": "192.0.2.2"}})
    assert endpoint.ip_address == "192.0.2.1"
    assert endpoint.ipam_config == EndpointIPAMConfig(ipv4_address="192.0.2.2")
    # docker-py's.
    assert ServiceMode.parse({"global": {}}).global_ is not None


def test_null_means_absent_and_keys_match_in_any_case() -> None:
    request = read(b'{"image":"x","CMD":"sh","Env":null,"Labels":{"a":null},"HostConfig":null}')
    assert (request.image, request.cmd, request.env, request.labels, request.host_config) == (
        "x",
        ("sh",),
        None,
        {"a": ""},
        None,
    )
    # As an element, null is Go's zero value.
    request = read(b'{"Volumes":{"/a":null},"HostConfig":{"Devices":[null]}}')
    assert request.volumes == {"/a": {}}
    assert request.host_config is not None
    assert request.host_config.devices == (DeviceMapping(),)
    assert read(b'{"Labels":{"a":"\xff"}}').labels == {"a": "\ufffd"}


def test_what_was_given_comes_back() -> None:
    """Null, empty and absent are three different values, and a document survives decoding and encoding."""
    given: dict[str, Any] = {
        "Cmd": [],
        "Entrypoint": None,
        "StopTimeout": 0,
        "HostConfig": {"Init": False, "MaskedPaths": []},
    }
    document = wire(read(json.dumps(given).encode()))
    assert document["Cmd"] == []
    assert document["Entrypoint"] is None
    assert document["StopTimeout"] == 0
    assert "Healthcheck" not in document
    assert "MacAddress" not in document
    host = document["HostConfig"]
    assert host["Init"] is False
    assert host["MaskedPaths"] == []
    assert host["ReadonlyPaths"] is None
    assert "Tmpfs" not in host
    assert host["NetworkMode"] == ""
    assert wire(read(json.dumps(document).encode())) == document
    assert wire(HostConfig.parse(host)) == host


def accepted(body: dict[str, Any], version: Version) -> CreateRequest:
    decoded = decode(body_of(CreateRequest), json.dumps({"Image": "x", **body}).encode())
    accept(decoded, version)
    return freeze(CreateRequest, decoded)


def test_older_clients_requests_are_read_as_they_meant_them() -> None:
    body = {
        "Image": "x",
        "Healthcheck": {"StartInterval": 5},
        "HostConfig": {"Annotations": {"a": "b"}, "ConsoleSize": [1, 2], "KernelMemory": 7, "AutoRemove": True},
    }
    new = accepted(body, (1, 51))
    assert new.host_config is not None
    assert new.host_config.annotations == {"a": "b"}
    assert new.host_config.console_size == (1, 2)
    assert new.host_config.kernel_memory == 0
    assert new.host_config.ipc_mode == ""
    assert new.healthcheck is not None
    assert new.healthcheck.start_interval == 5
    old = accepted(body, (1, 24))
    assert old.host_config is not None
    assert old.host_config.annotations is None
    assert old.host_config.console_size == (0, 0)
    assert old.host_config.kernel_memory == 7
    assert old.host_config.ipc_mode == "shareable"
    assert old.host_config.auto_remove is False
    assert old.healthcheck is not None
    assert old.healthcheck.start_interval == 0


@pytest.mark.parametrize(
    ("body", "version", "message"),
    [
        (
            {"HostConfig": {"Mounts": [{"Type": "volume", "VolumeOptions": {"Subpath": "a"}}]}},
            (1, 44),
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            {"HostConfig": {"Mounts": [{"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}}]}},
            (1, 43),
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            {"HostConfig": {"Mounts": [{"Type": "bind", "TmpfsOptions": {}}]}},
            (1, 42),
            'TmpfsOptions must not be specified on mount type "bind"',
        ),
        ({"HostConfig": {"Mounts": [{"Type": "image"}]}}, (1, 47), 'Mount type "Image" needs API v1.48 or newer'),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": None}}},
            (1, 43),
            "Container cannot be created with multiple network endpoints: a, b",
        ),
    ],
)
def test_what_a_version_refuses(body: dict[str, Any], version: Version, message: str) -> None:
    with pytest.raises(WharfError) as caught:
        accepted(body, version)
    assert caught.value.message == message
    accepted(body, (1, 51) if "TmpfsOptions" not in message else (1, 41))


@pytest.mark.parametrize("body", [b"null", b'{"HostConfig":{},"Nonsense":1,"Image":null}'])
def test_a_body_without_a_key_of_the_configuration(body: bytes) -> None:
    with pytest.raises(WharfError, match="config cannot be empty in order to create a container"):
        accept(decode(body_of(CreateRequest), body), (1, 51))


IMAGE = {"RepoTags": [], "RepoDigests": [], "Size": 5, "Containers": 2, "Descriptor": {}, "Manifests": []}
SUMMARY = {"HostConfig": {"NetworkMode": "x", "Annotations": {}}, "ImageManifestDescriptor": {}}
INFO = {"RuncCommit": {"ID": "r"}, "Runtimes": {"runc": {"path": "runc", "status": {}}}, "RegistryConfig": {}}
# (model, full answer, version, the client's view)
GOLDEN: list[tuple[type[Model], dict[str, Any], Version, dict[str, Any]]] = [
    (ImageSummary, IMAGE, (1, 51), IMAGE),
    (ImageSummary, IMAGE, (1, 50), {**IMAGE, "Containers": -1}),
    (
        ImageSummary,
        IMAGE,
        (1, 42),
        {
            "RepoTags": ["<none>:<none>"],
            "RepoDigests": ["<none>@<none>"],
            "Size": 5,
            "VirtualSize": 5,
            "Containers": -1,
        },
    ),
    (ImageInspect, {"Size": 1, "Config": {"Image": ""}}, (1, 50), {"Size": 1, "Config": {}}),
    (
        ImageInspect,
        {"Size": 1, "Config": {}},
        (1, 43),
        {
            "Size": 1,
            "VirtualSize": 1,
            "Created": "0001-01-01T00:00:00Z",
            "Container": "",
            "ContainerConfig": {},
            "Config": {
                "Hostname": "",
                "Domainname": "",
                "AttachStdin": False,
                "AttachStdout": False,
                "AttachStderr": False,
                "Tty": False,
                "OpenStdin": False,
                "StdinOnce": False,
                "Image": "",
            },
        },
    ),
    (ContainerSummary, SUMMARY, (1, 48), SUMMARY),
    (ContainerSummary, SUMMARY, (1, 45), {"HostConfig": {"NetworkMode": "x"}}),
    (
        ContainerSummary,
        {"NetworkSettings": {"Networks": {"a": {"GwPriority": 0, "DNSNames": None}}}},
        (1, 43),
        {"NetworkSettings": {"Networks": {"a": {"DNSNames": None}}}},
    ),
    (Info, INFO, (1, 50), INFO),
    (
        Info,
        INFO,
        (1, 43),
        {
            "RuncCommit": {"ID": "r", "Expected": "r"},
            "Runtimes": {"runc": {"path": "runc"}},
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": [],
                "AllowNondistributableArtifactsHostnames": [],
            },
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
        },
    ),
    (
        DiskUsage,
        {"Images": [dict(IMAGE)], "BuildCache": [{"ID": "a", "Parents": ["b"]}]},
        (1, 41),
        {
            "Images": [
                {
                    "RepoTags": ["<none>:<none>"],
                    "RepoDigests": ["<none>@<none>"],
                    "Size": 5,
                    "VirtualSize": 5,
                    "Containers": 2,
                }
            ],
            "BuildCache": [{"ID": "a", "Parent": "b"}],
        },
    ),
]


@pytest.mark.parametrize(("schema", "full", "version", "seen"), GOLDEN)
def test_answers_by_version(schema: type[Model], full: dict[str, Any], version: Version, seen: dict[str, Any]) -> None:
    assert shape(schema, json.loads(json.dumps(full)), version) == seen


def test_the_values_of_a_body_are_counted() -> None:
    some = limits.JSON_VALUES // 2
    read(b'{"Env":[' + b'"",' * some + b'""],"Unknown":{"a":[[1],{}]}}')
    ports = [f"{number}/tcp" for number in range(1, 65536)]
    bindings = {port: [{"HostIp": "", "HostPort": port.removesuffix("/tcp")}] for port in ports}
    published = {"ExposedPorts": {port: {} for port in ports}, "HostConfig": {"PortBindings": bindings}}
    host = read(json.dumps(published).encode()).host_config
    assert host is not None
    assert set(host.port_bindings or ()) == set(ports)
    for body in (b'{"a":[' + b'"",' * 2 * some + b'""]}', b'{"HostConfig":{"Mounts":[' + b'{"a":1},' * some + b"{}]}}"):
        with pytest.raises(
            WharfError, match=r"the number of values in the body exceeds the limit JSON_VALUES \(350000\)"
        ):
            read(body)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" + b"0, -1.5e3 ,[ ],{}, true," * 30_000 + b"x]", "invalid character 'x' looking for beginning of value"),
        (b"[" + b'"a",' * 30_000 + b"01]", "invalid character '1' after array element"),
        (b"{" + b'"a" : "b", ' * 30_000 + b"1}", "invalid character '1' looking for beginning of object key string"),
        (b'{"a":' + b'null,"b":' * 30_000 + b"nul}", "invalid character '}' in literal null (expecting 'l')"),
        (b"[" + b"{}," * 30_000, "unexpected EOF"),
    ],
)
def test_broken_json_after_many_elements(text: bytes, said: str) -> None:
    assert explain(text) == f"invalid JSON: {said}"
