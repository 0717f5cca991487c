"""Lazy pull: stargz-snapshotter provides the layers of an image, and containers read files when they need them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Wharf
from compat_tests.support.estargz import Layer, estargz, push
from compat_tests.support.images import busybox_layer, digest, docker_archive, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry, registry
from compat_tests.support.servers.registry_proxy import RegistryProxy, Reply
from compat_tests.support.servers.stargz import PROGRAM, Stargz, stargz

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"needs {PROGRAM}")

BIG = 8 << 20


@dataclass(slots=True)
class Lazy:
    """An engine with stargz-snapshotter, and an image of two layers in a registry behind a proxy."""

    engine: Wharf
    snapshotter: Stargz
    registry: Registry
    proxy: RegistryProxy
    layers: list[Layer]

    @property
    def name(self) -> str:
        return f"{self.proxy.address}/lazy/app:1"

    def run(self, *command: str, image: str = "") -> str:
        return self.engine.docker("run", "--rm", "--network=none", image or self.name, *command).stdout

    def blobs(self) -> set[str]:
        """The blobs in the content store."""
        return set(self.engine.ctr("content", "ls", "-q").stdout.split())

    def absent(self) -> bool:
        return not {digest(one.packed) for one in self.layers} & self.blobs()

    def snapshots(self) -> int:
        return len(self.engine.ctr("snapshots", "--snapshotter", "stargz", "ls").stdout.splitlines()) - 1

    @contextlib.contextmanager
    def pulled(self) -> Iterator[None]:
        """The image, pulled without its layers."""
        with self.removing():
            self.engine.docker("pull", self.name)
            assert self.absent()
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Removes all images at the end: nothing of them is left."""
        try:
            yield
        finally:
            self.engine.docker("builder", "prune", "-af")
            ids = self.engine.docker("images", "-aq", "--no-trunc").stdout.split()
            self.engine.docker("rmi", "-f", *set(ids))
            self.engine.ctr("leases", "create", "--id", "collect")
            self.engine.ctr("leases", "delete", "--sync", "collect")
            assert until(lambda: self.snapshots() == 0)


@pytest.fixture(scope="module", params=["wharf", pytest.param("containerd", marks=pytest.mark.stock)])
def lazy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lazy]:
    layers = [estargz(busybox_layer()), estargz(layer({"big": os.urandom(BIG), "small": b"hello"}))]
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(registry())
        push(origin, "lazy/app", "1", layers)
        proxy = stack.enter_context(RegistryProxy(origin.address))
        daemon = stack.enter_context(stargz(tmp_path_factory.mktemp("lazy") / "stargz", proxy.address))
        if request.param == "wharf":
            flags = ("--proxy-snapshotter", f"stargz={daemon.address}")
            engine = engines.wharf("lazy", "--storage-driver", "stargz", *flags)
        else:
            proxies = {"stargz": daemon.address}
            stock = stack.enter_context(engines.stock_containerd("lazy-ctd", proxies=proxies))
            engine = engines.wharf("lazy", "--storage-driver", "stargz", containerd=stock)
        yield Lazy(stack.enter_context(engine), daemon, origin, proxy, layers)


def test_a_container_starts_before_its_layers_are_there(lazy: Lazy) -> None:
    lazy.proxy.requests.clear()
    with lazy.pulled():
        assert lazy.engine.api.get("/info").json()["Driver"] == "stargz"
        assert lazy.run("cat", "/small") == "hello"
        assert lazy.absent()
        assert lazy.proxy.sent < BIG // 2
        # What is read arrives, and is right.
        line = lazy.run("sha256sum", "/big")
        with tarfile.open(fileobj=io.BytesIO(lazy.layers[1].plain)) as tar:
            big = tar.extractfile("big")
            assert big is not None
            assert line.split()[0] == digest(big.read()).removeprefix("sha256:")
        assert lazy.absent()
        usage = lazy.engine.docker("system", "df", "--format", "json").stdout.splitlines()
        assert json.loads(usage[0])["TotalCount"] == "1"
        again = lazy.engine.docker("pull", lazy.name).stdout
        assert "Image is up to date" in again
        assert lazy.absent()


def test_an_ordinary_image_is_downloaded(lazy: Lazy) -> None:
    archive = docker_archive("x:1", [busybox_layer(), layer({"plain": b"file"})])
    lazy.registry.copy_archive(archive, "plain/app:1")
    name = f"{lazy.proxy.address}/plain/app:1"
    with lazy.removing():
        lazy.engine.docker("pull", name)
        assert len(lazy.blobs()) == 4
        assert lazy.run("cat", "/plain", image=name) == "file"


def test_save_downloads_the_layers(lazy: Lazy, tmp_path: Path) -> None:
    with lazy.pulled():
        lazy.proxy.rule = lambda request: Reply(404) if "/blobs/" in request.path else None
        try:
            failed = lazy.engine.docker("save", "-o", str(tmp_path / "archive"), lazy.name, check=False)
        finally:
            lazy.proxy.rule = lambda request: None
        assert failed.status == 1
        assert "is not on this host" in failed.stderr
        assert any(digest(one.packed) in failed.stderr for one in lazy.layers)
        lazy.engine.docker("save", "-o", str(tmp_path / "archive"), lazy.name)
        with tarfile.open(tmp_path / "archive") as tar:
            names = {name.replace("blobs/sha256/", "sha256:") for name in tar.getnames()}
        assert {digest(one.packed) for one in lazy.layers} <= names
        assert not lazy.absent()


def test_push_needs_no_download_within_a_registry(lazy: Lazy) -> None:
    with lazy.pulled(), registry() as other:
        lazy.engine.docker("push", lazy.name)
        sibling = f"{lazy.proxy.address}/lazy/copy:1"
        lazy.engine.docker("tag", lazy.name, sibling)
        assert "Mounted from lazy/app" in lazy.engine.docker("push", sibling).stdout
        assert lazy.absent()
        elsewhere = other.name("lazy/app:1")
        lazy.engine.docker("tag", lazy.name, elsewhere)
        lazy.engine.docker("push", elsewhere)
        for one in lazy.layers:
            assert other.blob(digest(one.packed)).read_bytes() == one.packed


def test_images_are_made_of_it(lazy: Lazy, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {lazy.name}\nRUN cat small > made\nCOPY Dockerfile /\n")
    docker = lazy.engine.docker
    with lazy.pulled():
        for buildkit in ("0", "1"):
            docker("build", "--network=none", "-t", "built", str(tmp_path), env={"DOCKER_BUILDKIT": buildkit})
            assert lazy.run("cat", "/made", "/Dockerfile", image="built").startswith("helloFROM")
        docker("run", "--name=app", "--network=none", lazy.name, "sh", "-c", "echo changed > /small; rm /big")
        docker("commit", "app", "committed")
        docker("rm", "app")
        assert lazy.run("cat", "/small", image="committed") == "changed\n"
        assert "big" not in lazy.run("ls", "/", image="committed")
        assert lazy.absent()
        # What is missing below an own image is downloaded, too.
        docker("save", "-o", str(tmp_path / "archive"), "committed")
        docker("rmi", "committed")
        docker("load", "-q", "-i", str(tmp_path / "archive"))
        assert lazy.run("cat", "/small", image="committed") == "changed\n"


def test_restarts_of_the_engine_and_of_the_snapshotter(lazy: Lazy) -> None:
    engine = lazy.engine
    with lazy.pulled():
        engine.docker("run", "-d", "--name=app", "--network=none", lazy.name, "sleep", "1000")
        engine.restart()
        assert engine.docker("exec", "app", "cat", "/small").stdout == "hello"
        assert lazy.run("cat", "/small") == "hello"
        engine.docker("rm", "-f", "app")
        lazy.snapshotter.kill()
        failed = engine.docker("run", "--rm", "--network=none", lazy.name, "true", check=False)
        assert failed.status == 125
        assert str(lazy.snapshotter.address) in failed.stderr
        if engine.kind == "wharf":  # containerd's List names no kind of the error
            assert engine.docker("images", "-q").stdout
        lazy.snapshotter.start()
        command = ("run", "--rm", "--network=none", lazy.name, "cat", "/small")
        # containerd's client connects again after a pause.
        assert until(lambda: engine.docker(*command, check=False).stdout == "hello")
        assert lazy.absent()
