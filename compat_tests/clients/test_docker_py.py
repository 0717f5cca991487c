"""docker-py: its interfaces, from containers to errors."""

from __future__ import annotations

import gc
import io
import tarfile
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import errors
from docker.types import IPAMConfig, IPAMPool, Mount, Ulimit

from compat_tests.support import images
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

# docker-py leaves its stream sockets to the garbage collector; ignore its warnings here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    client = docker.DockerClient(base_url=engine.host, version="auto", timeout=90)
    yield client
    client.close()
    gc.collect()


@pytest.fixture
def name() -> str:
    return f"py{uuid.uuid4().hex[:10]}"


@pytest.fixture
def container(client: Any, name: str) -> Iterator[Any]:
    """A sleeping container with nearly every option."""
    created = client.containers.run(
        "busybox",
        "sleep 1000",
        detach=True,
        name=name,
        labels={"a": "b"},
        environment={"X": "1"},
        ports={"80/tcp": ("127.0.0.1", None)},
        mem_limit="64m",
        tmpfs={"/t": ""},
        volumes={f"{name}v": {"bind": "/v", "mode": "ro"}},
        cap_add=["NET_ADMIN"],
        dns=["192.0.2.1"],
        hostname="somehost",
        working_dir="/tmp",
        user="1:1",
    )
    try:
        yield created
    finally:
        created.remove(force=True, v=True)
        client.volumes.get(f"{name}v").remove()


def test_run_and_its_errors(client: Any) -> None:
    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    with pytest.raises(errors.ContainerError) as raised:
        client.containers.run("busybox", ["sh", "-c", "echo err >&2; exit 3"], remove=True)
    assert raised.value.exit_status == 3
    assert bytes(raised.value.stderr) == b"err\n"  # type: ignore[arg-type]
    with pytest.raises(errors.ImageNotFound):
        client.images.get("nosuch:image")
    with pytest.raises(errors.NotFound, match="No such container: nosuch"):
        client.containers.get("nosuch")
    with pytest.raises(errors.APIError, match="Invalid container name"):
        client.containers.create("busybox", name="bad name!")


def test_exec_in_all_its_forms(container: Any) -> None:
    container.reload()
    assert container.status == "running"
    assert container.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
    done = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
    assert (done.exit_code, done.output) == (5, (b"out\n", b"err\n"))
    assert container.exec_run("id -u", user="root").output == b"0\n"
    assert container.exec_run("id -u").output == b"1\n"
    assert container.exec_run(["sh", "-c", "echo $X $PWD; hostname"]).output == b"1 /tmp\nsomehost\n"
    stream = container.exec_run(["sh", "-c", "for i in 1 2 3; do echo $i; done"], stream=True).output
    assert b"".join(stream) == b"1\n2\n3\n"
    sock = container.exec_run("cat", stdin=True, socket=True).output
    with sock:
        sock._sock.sendall(b"hello\n")
        sock._sock.shutdown(1)
        assert sock.read().endswith(b"hello\n")


def test_response_head_of_an_exec_comes_alone(engine: Engine, container: Any) -> None:
    # docker-py reads the response head through a buffer and then the bare socket: it loses bytes sent with the head.
    made = engine.api.post(f"/containers/{container.id}/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True}).json()
    with engine.api.raw() as sock:
        head = b"Host: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2"
        sock.sendall(f"POST /exec/{made['Id']}/start HTTP/1.1\r\n".encode() + head + b"\r\n\r\n{}")
        path = f"/exec/{made['Id']}/json"
        assert until(lambda: engine.api.get(path).json()["ExitCode"] == 0)
        assert sock.recv(65536).endswith(b"\r\n\r\n")
        assert sock.makefile("rb").read() == b"\x01\0\0\0\0\0\0\x03hi\n"


def test_start_request_decides_framing_of_exec_output(client: Any, container: Any) -> None:
    for terminal in (True, False):
        created = client.api.exec_create(container.id, ["printf", "said"], tty=terminal)
        # without tty: docker-py takes the first eight bytes for a frame header
        assert client.api.exec_start(created) == b"said"
    created = client.api.exec_create(container.id, ["printf", "said"], tty=True)
    assert client.api.exec_start(created, tty=True) == b"said"


def test_a_link_is_removed_by_its_name(client: Any, name: str) -> None:
    target = client.containers.run("busybox", "sleep 1000", detach=True, name=f"{name}t")
    linked = client.containers.create("busybox", "true", name=name, links={target.name: "mate"})
    try:
        linked.reload()
        assert linked.attrs["HostConfig"]["Links"] == [f"/{name}t:/{name}/mate"]
        client.api.remove_container(f"{name}/mate", link=True)
        linked.reload()
        assert linked.attrs["HostConfig"]["Links"] is None
        with pytest.raises(errors.NotFound):
            client.api.remove_container(f"{name}/mate")
    finally:
        linked.remove(force=True)
        target.remove(force=True)


def test_a_build_on_a_network_of_the_user(client: Any, name: str) -> None:
    network = client.networks.create(name)
    target = client.containers.create("busybox", "sleep 1000", name=name)
    try:
        network.connect(target, aliases=["ping.target"])
        target.start()
        file = io.BytesIO(b"FROM busybox\nRUN ping -c1 ping.target\n")
        for key in (name, network.id):
            file.seek(0)
            image, _ = client.images.build(fileobj=file, network_mode=key, nocache=True)
            client.images.remove(image.id, force=True)
    finally:
        target.remove(force=True)
        network.remove()


def test_a_dockerfile_outside_of_the_context(client: Any, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("in the context")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /src\nCMD cat /src/file\n")
    # docker-py sends its name and its text as parameters of the same name
    image, _ = client.images.build(path=str(context), dockerfile=str(tmp_path / "Dockerfile"))
    try:
        assert client.containers.run(image, remove=True) == b"in the context"
    finally:
        client.images.remove(image.id, force=True)


def test_files_statistics_and_processes(container: Any) -> None:
    pieces, stat = container.get_archive("/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getnames() == ["passwd"]
    assert stat["name"] == "passwd"
    assert container.put_archive("/tmp", images.layer({"f.txt": b"abc"}))
    assert container.exec_run("cat /tmp/f.txt").output == b"abc"
    assert {"Path": "/tmp/f.txt", "Kind": 1} in container.diff()
    once = container.stats(stream=False)
    assert once["memory_stats"]["usage"] > 0
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    stream = container.stats(decode=True)
    assert next(stream)["read"]
    stream.close()
    assert any("sleep 1000" in " ".join(row) for row in container.top()["Processes"])


def test_lifecycle_of_a_container(client: Any, container: Any, name: str) -> None:
    container.rename(f"{name}x")
    container.update(mem_limit="96m", memswap_limit="96m")
    container.pause()
    container.reload()
    assert (container.name, container.status) == (f"{name}x", "paused")
    assert container.attrs["HostConfig"]["Memory"] == 96 * 1024 * 1024
    container.unpause()
    container.resize(10, 20)
    container.restart(timeout=0)
    container.kill("SIGKILL")
    assert container.wait()["StatusCode"] == 137
    container.start()
    container.stop(timeout=0)
    image = container.commit(name, "one")
    assert image.tags == [f"{name}:one"]
    client.images.remove(f"{name}:one")
    assert b"etc/passwd" in b"".join(container.export())
    assert [c.id for c in client.containers.list(all=True, filters={"name": name})] == [container.id]


def test_logs_and_attach(client: Any) -> None:
    created = client.containers.run(
        "busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; done; echo err >&2"], detach=True
    )
    try:
        created.wait()
        assert created.logs(stderr=False) == b"1\n2\n3\n"
        assert created.logs(stdout=False) == b"err\n"
        assert b"".join(created.logs(stream=True, follow=True, stderr=False)) == b"1\n2\n3\n"
        assert created.logs(timestamps=True, stderr=False).count(b"Z ") == 3
    finally:
        created.remove()
    created = client.containers.create("busybox", "cat", stdin_open=True)
    try:
        with created.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1}) as sock:
            created.start()
            sock._sock.sendall(b"yo\n")
            sock._sock.shutdown(1)
            assert sock.read() == b"\x01\0\0\0\0\0\0\x03yo\n"
        created.wait()
    finally:
        created.remove(force=True)
    created = client.containers.create("busybox", "echo early")
    try:
        stream = created.attach(stream=True, logs=True)
        created.start()
        assert b"".join(stream) == b"early\n"
        created.wait()
    finally:
        created.remove(force=True)


def test_images_by_docker_py(client: Any, name: str) -> None:
    image = client.images.get("busybox")
    assert "busybox:latest" in image.tags
    assert image.history()
    assert client.images.list(filters={"reference": "busybox"})
    loaded = client.images.load(b"".join(image.save(named=True)))
    assert loaded[0].tags == ["busybox:latest"]
    assert image.tag(name, "two")
    client.images.remove(f"{name}:two")
    text = b"FROM busybox\nARG A\nRUN echo $A > /a\nLABEL q=r\nCMD cat /a"
    built, log = client.images.build(fileobj=io.BytesIO(text), tag=name, buildargs={"A": "v"}, rm=True)
    try:
        assert built.labels == {"q": "r"}
        assert any("Successfully built" in line.get("stream", "") for line in log)
        assert client.containers.run(name, remove=True) == b"v\n"
    finally:
        client.images.remove(name)
    with pytest.raises(errors.BuildError, match="returned a non-zero code: 1"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false"), rm=True)
    with pytest.raises(errors.APIError, match="localhost:1"):
        client.images.pull("localhost:1/nosuch")
    client.api.import_image_from_data(images.layer({"f": b"x"}), repository=name, tag="three")
    client.images.remove(f"{name}:three")


def test_networks_and_volumes(client: Any, engine: Engine, name: str) -> None:
    # From the end of the pool: the engine takes free ones from its begin.
    *_, last = IPv4Network(engine.resources.pool.split(",")[0].removeprefix("base=")).subnets(new_prefix=24)
    subnet = str(last.network_address).rpartition(".")[0]
    pool = IPAMPool(subnet=f"{subnet}.0/28", gateway=f"{subnet}.1")
    network = client.networks.create(
        name, driver="bridge", labels={"a": "b"}, ipam=IPAMConfig(pool_configs=[pool]), internal=True, attachable=True
    )
    other = client.networks.create(f"{name}x")
    created = client.containers.run(
        "busybox",
        "sleep 1000",
        detach=True,
        network=name,
        networking_config={
            name: client.api.create_endpoint_config(aliases=["alias"], ipv4_address=f"{subnet}.9"),
        },
    )
    try:
        network.reload()
        assert network.attrs["IPAM"]["Options"] is None
        assert [each.id for each in network.containers] == [created.id]
        other.connect(created, aliases=["second"])
        created.reload()
        networks = created.attrs["NetworkSettings"]["Networks"]
        assert set(networks) == {name, f"{name}x"}
        assert networks[name]["IPAddress"] == f"{subnet}.9"
        other.disconnect(created, force=True)
    finally:
        created.remove(force=True)
        network.remove()
        other.remove()
    with pytest.raises(errors.NotFound):
        client.networks.get(name)
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volume = client.volumes.create(name, labels={"x": name}, driver_opts=options)
    try:
        assert [each.name for each in client.volumes.list(filters={"label": f"x={name}"})] == [name]
        script = ["sh", "-c", "grep -c 'tmpfs /v tmpfs' /proc/mounts"]
        assert client.containers.run("busybox", script, volumes=[f"{name}:/v"], remove=True) == b"1\n"
    finally:
        volume.remove()


def test_the_low_level_interface(client: Any, name: str) -> None:
    api = client.api
    host = api.create_host_config(
        binds=["/etc:/h:ro"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config={"type": "json-file", "config": {"max-size": "1m"}},
        devices=["/dev/null:/dev/xnull:rwm"],
        sysctls={"net.core.somaxconn": "200"},
        ulimits=[Ulimit(name="nofile", soft=100, hard=100)],
        shm_size="32m",
        init=True,
        read_only=True,
        pids_limit=50,
        mounts=[Mount("/m", name, type="volume"), Mount("/tt", None, type="tmpfs", tmpfs_size=1000000)],
        security_opt=["no-new-privileges"],
        group_add=["5"],
        extra_hosts={"other": "192.0.2.9"},
        oom_score_adj=10,
    )
    script = "ls /dev/xnull; cat /proc/sys/net/core/somaxconn; ulimit -n; id -G; grep other /etc/hosts; "
    script += "cat /proc/self/oom_score_adj; df -k /dev/shm | tail -1 | awk '{print $2}'"
    created = api.create_container(
        "busybox",
        ["sh", "-c", script],
        host_config=host,
        healthcheck={"test": ["CMD", "true"], "interval": 10**9},
        stop_signal="SIGINT",
        domainname="example",
        platform="linux/amd64",
    )
    try:
        api.start(created)
        assert api.wait(created, condition="not-running")["StatusCode"] == 0
        expected = ["/dev/xnull", "200", "100", "0 5 10", "192.0.2.9\tother", "10", "32768"]
        assert api.logs(created).decode().splitlines() == expected
    finally:
        api.remove_container(created, v=True, force=True)
        api.remove_volume(name)


def test_the_daemon(client: Any) -> None:
    assert client.ping()
    assert client.info()["OSType"] == "linux"
    assert client.version()["ApiVersion"] == "1.55"
    assert set(client.df()) >= {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    assert client.plugins.list() == []


def test_an_engine_without_a_swarm(client: Any) -> None:
    for refused in (client.services.list, client.nodes.list, client.secrets.list):
        with pytest.raises(errors.APIError, match="swarm"):
            refused()
