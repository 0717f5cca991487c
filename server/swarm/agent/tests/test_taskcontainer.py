"""The create request of a task's container."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from api_models.container import HealthConfig, HostConfig, LogConfig, PortBinding
from api_models.mount import BindOptions, Mount, TmpfsOptions, VolumeOptions
from api_models.mount import DriverConfig as VolumeDriver
from api_models.resources import DeviceRequest, RestartPolicy, Ulimit
from api_models.swarm.common import Driver
from api_models.swarm.container import (
    AppArmorOpts,
    CredentialSpec,
    DNSConfig,
    Privileges,
    SeccompOpts,
    SELinuxContext,
)
from api_models.swarm.network import Endpoint, PortConfig
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import (
    DiscreteResource,
    GenericResource,
    Limit,
    NamedResource,
    Platform,
    ResourceRequirements,
    Resources,
    TaskSpec,
)
from engine.common.errors import WharfError
from server.containers.create.create import CreateRequest
from server.swarm.agent.taskcontainer import create_request
from server.swarm.agent.tests.fakes import make_task
from server.swarm.model.objects import Attachment, Task

NODE = NodeDescription(hostname="lab1", platform=Platform(architecture="x86_64", os="linux"))
SECOND = 1_000_000_000


def _request(**container: Any) -> CreateRequest:
    return create_request(make_task("t1", **container), NODE)


def _refusal(**container: Any) -> str:
    with pytest.raises(WharfError) as caught:
        _request(**container)
    return caught.value.message


def test_all_of_the_container_spec() -> None:
    check = HealthConfig(test=("CMD", "true"), interval=SECOND)
    request = _request(
        image="busybox:1.36@sha256:" + "a" * 64,
        labels={"own": "1", "com.docker.swarm.task.id": "forged"},
        command=("sh", "-c"),
        args=("true",),
        hostname="h",
        env=("A=1", "B"),
        dir="/work",
        user="1:2",
        groups=("5",),
        init=True,
        stop_signal="SIGINT",
        tty=True,
        open_stdin=True,
        read_only=True,
        healthcheck=check,
        hosts=("1.2.3.4 a b", "  ", "::1 c"),
        dns_config=DNSConfig(nameservers=("1.1.1.1",), search=("x",), options=("ndots:2",)),
        sysctls={"net.a": "1"},
        capability_add=("NET_ADMIN",),
        capability_drop=("ALL",),
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        oom_score_adj=7,
    )
    config, host = request.config, request.host_config
    assert (request.name, request.managed) == ("web.1.t1", True)
    assert config.image == "busybox:1.36@sha256:" + "a" * 64
    assert (config.entrypoint, config.cmd) == (("sh", "-c"), ("true",))
    assert (config.hostname, config.env, config.working_dir, config.user) == ("h", ("A=1", "B"), "/work", "1:2")
    assert (config.stop_signal, config.tty, config.open_stdin, config.healthcheck) == ("SIGINT", True, True, check)
    assert config.labels == {
        "own": "1",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "t1",
        "com.docker.swarm.task.name": "web.1.t1",
        "com.docker.swarm.node.id": "node1",
        "com.docker.swarm.service.id": "service1",
        "com.docker.swarm.service.name": "web",
    }
    assert host == HostConfig(
        network_mode="bridge",
        restart_policy=RestartPolicy(name="no"),
        isolation="default",
        group_add=("5",),
        init=True,
        readonly_rootfs=True,
        extra_hosts=("a:1.2.3.4", "c:::1"),
        dns=("1.1.1.1",),
        dns_search=("x",),
        dns_options=("ndots:2",),
        sysctls={"net.a": "1"},
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        oom_score_adj=7,
    )


def test_arguments_without_a_command_are_those_of_the_image() -> None:
    config = _request(command=None, args=("-x",)).config
    assert (config.entrypoint, config.cmd) == (None, ("-x",))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("localhost:5000/a/b@sha256:" + "0" * 64, "localhost:5000/a/b@sha256:" + "0" * 64),
        ("UPPER", "UPPER"),
    ],
)
def test_the_name_of_the_image(image: str, expected: str) -> None:
    assert _request(image=image).config.image == expected


def _with(task: Task, **spec: Any) -> CreateRequest:
    return create_request(replace(task, spec=replace(task.spec, **spec)), NODE)


def test_limits() -> None:
    task = make_task("t1")
    limits = Limit(nano_cpus=SECOND // 2, memory_bytes=64 << 20, pids=99)
    reserved = Resources(memory_bytes=32 << 20)
    host = _with(task, resources=ResourceRequirements(limits=limits, reservations=reserved)).host_config
    assert (host.nano_cpus, host.memory, host.pids_limit) == (SECOND // 2, 64 << 20, 99)
    assert (host.memory_swap, host.memory_swappiness, host.memory_reservation) == (0, None, 0)
    swap = ResourceRequirements(limits=limits, swap_bytes=1 << 20, memory_swappiness=10)
    host = _with(task, resources=swap).host_config
    assert (host.memory_swap, host.memory_swappiness) == (65 << 20, 10)
    unlimited = ResourceRequirements(limits=limits, swap_bytes=-1)
    assert _with(task, resources=unlimited).host_config.memory_swap == -1


def test_the_log_driver() -> None:
    driver = Driver(name="json-file", options={"tag": "x"})
    host = _with(make_task("t1"), log_driver=driver).host_config
    assert host.log_config == LogConfig(type="json-file", config={"tag": "x"})


def test_generic_resources() -> None:
    def named(kind: str, value: str) -> GenericResource:
        return GenericResource(named_resource_spec=NamedResource(kind=kind, value=value))

    resources = (
        named("fpga", "a"),
        named("fpga", "b"),
        named("nvidia.com/gpu", "0"),
        GenericResource(discrete_resource_spec=DiscreteResource(kind="ssd", value=3)),
    )
    request = create_request(replace(make_task("t1"), generic_resources=resources), NODE)
    assert request.config.env == (
        "DOCKER_RESOURCE_FPGA=a,b",
        "DOCKER_RESOURCE_NVIDIA.COM/GPU=0",
        "DOCKER_RESOURCE_SSD=3",
    )
    assert request.host_config.device_requests == (DeviceRequest(driver="cdi", device_ids=("nvidia.com/gpu=0",)),)


def test_ports_of_the_mode_host() -> None:
    ports = (
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=80, published_port=8081, publish_mode="host"),
        PortConfig(protocol="udp", target_port=53, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=443, published_port=443, publish_mode="ingress"),
    )
    request = create_request(replace(make_task("t1"), endpoint=Endpoint(ports=ports)), NODE)
    assert request.host_config.port_bindings == {
        "80/tcp": (PortBinding(host_port="8080"), PortBinding(host_port="8081")),
        "53/udp": (PortBinding(),),
    }
    assert set(request.config.exposed_ports or ()) == {"80/tcp", "53/udp"}


def test_networks() -> None:
    attachments = (
        Attachment(network_id="n1", addresses=("10.0.1.5/24", "fd00::5/64"), aliases=("web", "www")),
        Attachment(network_id="n2", addresses=("10.0.2.5/24",), driver_opts={"a": "b"}),
    )
    request = create_request(replace(make_task("t1"), attachments=attachments), NODE)
    first, second = request.endpoints["n1"], request.endpoints["n2"]
    assert first.ipam_config is not None
    assert (first.ipam_config.ipv4_address, first.ipam_config.ipv6_address) == ("10.0.1.5", "fd00::5")
    assert (first.aliases, second.driver_opts) == (("web", "www"), {"a": "b"})
    assert request.host_config.network_mode == "bridge"


@pytest.mark.parametrize("name", ["host", "none", "bridge"])
def test_predefined_networks(name: str) -> None:
    task = replace(make_task("t1"), attachments=(Attachment(network_id=name),))
    request = create_request(task, NODE)
    assert (request.host_config.network_mode, list(request.endpoints)) == (name, [name])


def test_privileges() -> None:
    profile = base64.b64encode(b'{"a": 1}').decode()
    privileges = Privileges(
        selinux_context=SELinuxContext(disable=True),
        seccomp=SeccompOpts(mode="custom", profile=profile),
        app_armor=AppArmorOpts(mode="disabled"),
        no_new_privileges=True,
    )
    assert _request(privileges=privileges).host_config.security_opt == (
        "label=disable",
        'seccomp={"a": 1}',
        "apparmor=unconfined",
        "no-new-privileges=true",
    )
    unconfined = Privileges(seccomp=SeccompOpts(mode="unconfined"), app_armor=AppArmorOpts(mode="default"))
    assert _request(privileges=unconfined).host_config.security_opt == ("seccomp=unconfined",)
    assert _request(privileges=Privileges()).host_config.security_opt is None


def test_what_is_not_supported_is_refused_by_name() -> None:
    assert "CredentialSpec" in _refusal(privileges=Privileges(credential_spec=CredentialSpec(file="x")))
    assert "SELinuxContext" in _refusal(privileges=Privileges(selinux_context=SELinuxContext(type="svirt_t")))
    assert "seccomp" in _refusal(privileges=Privileges(seccomp=SeccompOpts(mode="custom", profile="%")))
    assert "named pipes" in _refusal(mounts=(Mount(type="npipe", source="a", target="b"),))
    assert "CSI" in _refusal(mounts=(Mount(type="cluster", source="a", target="/b"),))


def test_mounts() -> None:
    mounts = (
        Mount(type="bind", source="/a", target="/b", read_only=True, bind_options=BindOptions(propagation="rslave")),
        Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=1024)),
        Mount(
            type="volume",
            source="v-{{.Task.Slot}}",
            target="/v/{{.Service.Name}}",
            volume_options=VolumeOptions(
                labels={"l": "{{.Node.Hostname}}"},
                driver_config=VolumeDriver(name="local", options={"o": "{{.Task.ID}}"}),
            ),
        ),
        Mount(type="image", source="busybox", target="/i"),
    )
    made = _request(mounts=mounts).host_config.mounts or ()
    assert made[:2] == mounts[:2]
    assert made[3] == mounts[3]
    assert (made[2].source, made[2].target) == ("v-1", "/v/web")
    volume = made[2].volume_options
    assert volume is not None
    assert volume.labels == {"l": "lab1"}
    assert volume.driver_config == VolumeDriver(name="local", options={"o": "t1"})


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (Mount(type="bind", source="a", target="/b"), "invalid bind mount source, must be an absolute path: a"),
        (Mount(type="bind", source="/a", target="b"), "invalid mount target, must be an absolute path: b"),
        (
            Mount(type="volume", source="/a", target="/b"),
            "invalid volume mount source, must not be an absolute path: /a",
        ),
        (Mount(type="tmpfs", source="a", target="/b"), "invalid tmpfs source, source must be empty"),
        (Mount(type="x", source="a", target="/b"), "invalid mount type: x"),
    ],
)
def test_invalid_mounts(mount: Mount, expected: str) -> None:
    assert _refusal(mounts=(mount,)) == expected


def test_templates() -> None:
    task = replace(
        make_task(
            "t1",
            hostname='{{.Service.Name}}-{{.Task.Slot}}-{{index .Service.Labels "x"}}{{index .Service.Labels "y"}}',
            env=(
                "IDS={{.Service.ID}} {{.Task.ID}} {{.Task.Name}} {{.Node.ID}}",
                "NODE={{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
                'JOINED={{join "," .Task.Slot "b"}}{{if eq .Task.Slot "1"}}!{{end}}',
                "{{.Not.Expanded}}",
            ),
        ),
        service_labels={"x": "lx"},
    )
    config = create_request(task, NODE).config
    assert config.hostname == "web-1-lx"
    assert config.env == (
        "IDS=service1 t1 web.1.t1 node1",
        "NODE=lab1 linux/x86_64",
        "JOINED=1,b!",
        "{{.Not.Expanded}}",
    )
    everywhere = replace(make_task("t1", hostname="{{.Task.Slot}}"), slot=0)
    assert create_request(everywhere, NODE).config.hostname == "node1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Foo", "template: expansion:1: unclosed action"),
        (
            "{{.Service.Labels.foo}}",
            'template: expansion:1:10: executing "expansion" at <.Service.Labels.foo>: map has no entry for key "foo"',
        ),
        ("{{title .Task.ID}}", 'template: expansion:1: function "title" not defined'),
        (
            "{{.Foo}}",
            'template: expansion:1:2: executing "expansion" at <.Foo>: '
            "can't evaluate field Foo in type *template.Context",
        ),
    ],
)
def test_malformed_templates_have_the_sentences_of_go(text: str, expected: str) -> None:
    assert _refusal(env=(f"X={text}",)) == f'expanding env failed: expanding env "X={text}": {expected}'


def test_other_runtimes_are_refused() -> None:
    with pytest.raises(WharfError, match="unsupported runtime: plugin"):
        create_request(replace(make_task("t1"), spec=TaskSpec(runtime="plugin")), NODE)
