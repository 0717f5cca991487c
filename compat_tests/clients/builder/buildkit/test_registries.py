"""Base images in registries with authentication: passwords and tokens, in every form that a build can pass them; and
that none of them is stored."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from compat_tests.clients.builder.builds import Built, Case
from compat_tests.clients.builder.buildx import build
from compat_tests.support.disk import entries
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, docker_archive
from compat_tests.support.servers.registry import PASSWORD, USER, Registry, registry
from compat_tests.support.transfers import unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")

#: Logs and databases are read completely, of blobs and layers only files that may be documents.
LARGE = 8 << 20


@pytest.fixture(scope="module", params=["basic", "token"])
def private(request: pytest.FixtureRequest) -> Iterator[Registry]:
    """A registry that requires authentication for pulls."""
    with registry(auth=request.param) as found:
        if found.tokens is not None:
            found.tokens.public = False
        for name in ("classic", "cli", "py", "buildkit"):
            found.copy_archive(docker_archive("x:1", [busybox_layer(), *unique_layers(1)]), f"team/{name}:1")
        yield found


def build_with_credentials(engine: Engine, base: str, config: Mapping[str, object] | None) -> Built:
    """Run a classic build whose request carries this ``X-Registry-Config``."""
    headers = {"Content-Type": "application/x-tar"}
    if config is not None:
        headers["X-Registry-Config"] = base64.urlsafe_b64encode(json.dumps(config).encode()).decode()
    case = Case(f"FROM {base}\nCMD true\n")
    return Built(engine.api.request("POST", "/build", body=case.context(), headers=headers, timeout=90))


def files_with_the_password(engine: Engine) -> list[str]:
    """Return the engine's files (log, databases, blobs, layers, contexts) that contain the password in any encoding."""
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode())[:-3]
    forms = (PASSWORD.encode(), packed, b"open+sesame", b"open%20sesame", base64.b64encode(PASSWORD.encode())[:-3])
    root = engine.resources.root
    found = []
    paths = [Path(path) for directory in ("data", "run") for path, _ in entries(root / directory)]
    for path in [root / "wharfd.log", *paths]:
        with contextlib.suppress(OSError):  # files may disappear
            if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGE:
                data = path.read_bytes()
                found += [str(path) for form in forms if form in data]
    return found


def test_credentials_of_classic_builds(engine: Engine, private: Registry) -> None:
    base = private.name("team/classic:1")
    mine = {"username": USER, "password": PASSWORD}
    refused: list[Mapping[str, object] | None] = [
        None,
        {},
        {"elsewhere:5000": mine},
        {private.address: {"username": USER, "password": "wrong " + PASSWORD}},
        {private.address: "no object"},
    ]
    for config in refused:
        built = build_with_credentials(engine, base, config)
        assert "pull access denied" in built.error or "incorrect username or password" in built.error, config
        assert PASSWORD not in built.answer.body.decode()
    accepted: list[Mapping[str, object]] = [
        {private.address: mine},
        {private.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}},
        {f"http://{private.address}/v1/": mine},  # a key of old configurations
        {"elsewhere:5000": {"username": "x", "password": "y"}, private.address: {**mine, "serveraddress": "z"}},
    ]
    if private.tokens is not None:
        accepted.append({private.address: {"identitytoken": "identity"}})
    for config in accepted:
        assert build_with_credentials(engine, base, config).error == "", config
        engine.docker("rmi", "-f", base)
        engine.docker("image", "prune", "-f")
    assert not files_with_the_password(engine)


def test_clients_send_their_stored_credentials(engine: Engine, private: Registry, tmp_path: Path) -> None:
    """The CLI and docker-py with the classic builder, and buildx, which is asked for credentials during the build."""
    for name in ("cli", "py", "buildkit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(f"FROM {private.name(f'team/{name}:1')}\nRUN echo built > /it\n")
    classic = {"DOCKER_BUILDKIT": "0"}
    denied = engine.docker("build", str(tmp_path / "cli"), env=classic, check=False)
    assert "pull access denied" in denied.stderr
    unauthorized = build(engine, str(tmp_path / "buildkit"), check=False)
    assert unauthorized.status == 1
    assert "401 Unauthorized" in unauthorized.stderr or "pull access denied" in unauthorized.stderr, unauthorized.stderr
    engine.docker("login", "-u", USER, "--password-stdin", private.address, input=PASSWORD)
    try:
        engine.docker("build", "-t", "private:cli", str(tmp_path / "cli"), env=classic)
        build(engine, "-t", "private:buildkit", str(tmp_path / "buildkit"))
    finally:
        engine.docker("logout", private.address)
    import docker

    with contextlib.closing(docker.DockerClient(base_url=engine.host, version="auto", timeout=90)) as client:
        with pytest.raises(docker.errors.BuildError, match="pull access denied"):
            client.images.build(path=str(tmp_path / "py"), tag="private:py")
        client.login(USER, PASSWORD, registry=private.address)
        client.images.build(path=str(tmp_path / "py"), tag="private:py")
        # again by its low-level interface, which sends the same header
        lines = client.api.build(fileobj=io.BytesIO(b"FROM " + private.name("team/py:1").encode()), pull=True)
        assert b"Successfully built" in b"".join(lines)
    for name in ("cli", "py", "buildkit"):
        output = engine.docker("run", "--rm", "--network", "none", f"private:{name}", "cat", "/it").stdout
        assert output == "built\n"
    assert not files_with_the_password(engine)
