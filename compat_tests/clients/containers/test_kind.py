"""kind on the engine: its containers, logs, execs, networks and saves, with a stand-in for the image of a node.

The stand-in boots the host's systemd after the steps of a node's entrypoint that concern the engine. Its kubeadm,
kubectl, crictl and ctr are scripts, so everything of `kind create cluster` runs but Kubernetes.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from compat_tests.clients.containers import test_node_dns
from compat_tests.clients.containers.streams import test_systemd
from compat_tests.clients.containers.test_names import address, addresses
from compat_tests.support.engines import Engine
from compat_tests.support.images import Node, docker_archive, layer

TAG = "wharf-test/kind-node:1"
NODES = ("wt-control-plane", "wt-worker")
CLUSTER = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: wt
nodes:
- role: control-plane
- role: worker
"""
# systemd refuses cgroup v1 without the argument.
ENTRYPOINT = f"""#!/bin/sh
{test_node_dns.REWRITE}
[ -e /sys/fs/cgroup/cgroup.controllers ] || set -- "$@" SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
exec "$@"
"""
CTR = """#!/bin/sh
case "$*" in
  *" images import "*) cat >/run/imported.tar ;;
esac
"""
CONTAINERD = """#!/bin/sh
echo 'version = 2'
echo '[plugins."io.containerd.grpc.v1.cri".containerd]'
echo 'snapshotter = "overlayfs"'
"""
RECORD = '#!/bin/sh\necho "${0##*/} $*" >>/run/commands\n'
ADMIN = """apiVersion: v1
kind: Config
clusters: [{name: wt, cluster: {server: "https://wt-control-plane:6443"}}]
contexts: [{name: wt, context: {cluster: wt, user: wt}}]
current-context: wt
users: [{name: wt, user: {}}]
"""

pytestmark = [
    pytest.mark.root,
    *test_systemd.pytestmark[2:],
    *test_node_dns.pytestmark[2:],
    pytest.mark.skipif(shutil.which("kind") is None, reason="needs kind"),
]


def node_layer() -> bytes:
    scripts = {"entrypoint": ENTRYPOINT, "ctr": CTR, "containerd": CONTAINERD, "crictl": "#!/bin/sh\nexit 1\n"}
    scripts |= dict.fromkeys(("kubeadm", "kubectl"), RECORD)
    nodes: dict[str, Node | bytes | str] = {
        f"usr/bin/{name}": Node(text.encode(), mode=0o755) for name, text in scripts.items()
    }
    busybox = shutil.which("busybox") or ""
    nodes |= {f"usr/bin/{name}": Node(kind=tarfile.SYMTYPE, link=busybox) for name in ("cp", "mkdir", "wc", "tar")}
    texts = {"kind/version": "v1.32.2\n", "etc/kubernetes/admin.conf": ADMIN}
    texts |= {f"kind/manifests/default-{name}.yaml": "{}\n" for name in ("cni", "storage")}
    return layer({**nodes, **texts})


def test_a_cluster_of_two_nodes(own_engine: Engine, tmp_path: Path) -> None:
    engine = own_engine
    engine.load_busybox()
    layers = [test_systemd.root_file_system(), test_node_dns.tools(), node_layer()]
    command = ["/usr/bin/entrypoint", str(test_systemd.SYSTEMD)]
    environment = ["PATH=/usr/sbin:/usr/bin", "container=docker"]
    engine.docker("load", input=docker_archive(TAG, layers, Entrypoint=command, Env=environment))
    config = tmp_path / "cluster.yaml"
    config.write_text(CLUSTER)
    own = {"KUBECONFIG": str(tmp_path / "kubeconfig")}

    def kind(*argv: str) -> str:
        return engine.run("kind", *argv, env=own, timeout=60).stdout

    try:
        kind("create", "cluster", "--config", str(config), "--image", TAG, "--retain", "--wait", "0s")
        assert sorted(kind("get", "nodes", "--name", "wt").split()) == sorted(NODES)
        first, second = NODES
        commands = engine.docker("exec", first, "cat", "/run/commands").stdout
        assert commands.startswith("kubeadm init --config=/kind/kubeadm.conf")
        assert engine.docker("exec", second, "cat", "/run/commands").stdout.startswith("kubeadm join ")
        for client, name in ((first, second), (second, first)):
            assert "127.0.0.11" not in engine.docker("exec", client, "cat", "/etc/resolv.conf").stdout.split("#")[0]
            assert address(engine, name, "kind") in addresses(engine, client, name)
        kind("load", "docker-image", "busybox:latest", "--name", "wt")
        for name in NODES:
            manifest = engine.docker("exec", name, "tar", "-xOf", "/run/imported.tar", "manifest.json").stdout
            assert '"busybox:latest"' in manifest
        kind("delete", "cluster", "--name", "wt")
        assert not engine.docker("ps", "-aq").stdout
    finally:
        engine.docker("rm", "-fv", *NODES, check=False)
        engine.docker("network", "rm", "kind", check=False)
        engine.docker("rmi", "-f", TAG, check=False)
