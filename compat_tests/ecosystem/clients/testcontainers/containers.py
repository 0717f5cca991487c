"""Containers, networks, images and compose projects made by Testcontainers for Python."""

from urllib.request import urlopen

from testcontainers.compose import DockerCompose
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy
from testcontainers.core.waiting_utils import wait_for_logs

SERVER = ["sh", "-c", "mkdir -p /www; echo served >/www/index.html; echo ready; exec httpd -f -p 8080 -h /www"]


def read(url: str) -> bytes:
    with urlopen(url) as answer:
        return answer.read()


with Network() as network:
    server = DockerContainer("busybox:latest").with_command(SERVER).with_exposed_ports(8080).with_env("COLOUR", "blue")
    server.with_network(network).with_network_aliases("server").waiting_for(HttpWaitStrategy(8080))
    with server:
        wait_for_logs(server, "ready", timeout=10)
        url = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(8080)}/"
        assert read(url) == b"served\n"
        assert tuple(server.exec(["sh", "-c", "echo $COLOUR; exit 3"])) == (3, b"blue\n")
        client = DockerContainer("busybox:latest").with_network(network)
        with client.with_command(["wget", "-qO-", "http://server:8080/"]):
            wait_for_logs(client, "served", timeout=10)

with DockerImage("context", tag="testcontainers:built", buildargs={"TEXT": "built"}) as image:
    with DockerContainer(str(image)) as container:
        wait_for_logs(container, "built", timeout=10)

with DockerCompose(".", wait=True) as compose:
    assert read(f"http://127.0.0.1:{compose.get_service_port('web', 8080)}/") == b"served\n"
    assert compose.exec_in_container(["echo", "inside"], "web")[0] == "inside\n"
