"""Volume plugins: where they are found, of which kind they are, and over TLS."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import orjson
import pytest

from engine.common.errors import WharfError
from server.plugins.tests.plugins import Plugin
from server.volumes.tests.stores import listed, make


@pytest.mark.parametrize("implements", [["LogDriver"], [], None, "VolumeDriver", 5])
def test_a_plugin_of_another_kind_is_activated_once(tmp_path: Path, implements: object) -> None:
    async def scenario(other: Plugin) -> None:
        volumes = make(tmp_path)
        for _ in range(3):
            assert await listed(volumes) == ([], [])
        assert volumes.driver_names() == ["local"]
        with pytest.raises(WharfError, match='plugin "log" does not implement the requested interface'):
            await volumes.create("vol", "log")
        assert other.words() == ["Plugin.Activate"]

    with Plugin(tmp_path / "log.sock", implements) as other:
        asyncio.run(scenario(other))


def test_where_plugins_are_found(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    (tmp_path / "deep").mkdir()
    specs.mkdir()
    with Plugin(tmp_path / "deep" / "deep.sock") as deep, Plugin(tmp_path / "elsewhere") as far:
        (specs / "far.spec").write_text(f"unix://{far.path}\n")
        (specs / "empty.json").write_text("{}")
        (specs / "odd.json").write_text('{"Addr": "unix:///x", "TLSConfig": {"Cipher": "none"}}')
        (specs / "broken.spec").write_text("tcp://127.0.0.1:no-port")
        (specs / "binary.spec").write_bytes(b"\xff")
        (tmp_path / "file.sock").write_text("no socket")
        deep.volumes["below"] = {"Name": "below"}
        far.volumes["away"] = {"Name": "away"}
        far.volumes["below"] = {"Name": "below"}

        async def scenario() -> None:
            # If two have a volume of the same name, the first one's is listed.
            assert await listed(make(tmp_path)) == ([("away", "far"), ("below", "deep")], [])
            for name, why in (
                ("empty", 'no address in "Addr"'),
                ("odd", '"Cipher" is unknown'),
                ("binary", "can't decode byte 0xff"),
            ):
                with pytest.raises(WharfError, match=why):
                    await make(tmp_path).create("x", name)
            with pytest.raises(WharfError, match="not found"):
                await make(tmp_path).create("x", "n" * 5000)

        asyncio.run(scenario())


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    files = directory / f"{name}.pem", directory / f"{name}.key"
    words = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    command = [
        *words.split(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        str(files[0]),
        "-keyout",
        str(files[1]),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_plugin_with_tls(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (server, server_key), (client, client_key) = certificate(tmp_path, "plugin"), certificate(tmp_path, "wharf")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client)
    context.load_cert_chain(server, server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    own = {"CertFile": str(client), "KeyFile": str(client_key)}
    with Plugin(tmp_path / "none", tls=context) as plugin:
        for name, settings in (
            ("good", {"CAFile": str(server), **own}),
            ("blind", own),  # without a CA nothing is verified
            ("skips", {"CAFile": str(client), "InsecureSkipVerify": True, **own}),
            ("doubts", {"CAFile": str(client), **own}),
            ("unknown", {"CAFile": str(server)}),
            ("lost", {"CAFile": "/nosuch"}),
        ):
            spec = {"Name": "x", "Addr": f"https://127.0.0.1:{plugin.port}/plugin", "TLSConfig": settings}
            (specs / f"{name}.json").write_bytes(orjson.dumps(spec))

        async def scenario() -> None:
            for name in ("good", "blind", "skips"):
                assert (await make(tmp_path).create(f"v-{name}", name)).mountpoint == f"/mnt/v-{name}"
            for name, why in (
                ("doubts", "(?i)certificate verify failed"),
                ("unknown", 'plugin "unknown"'),
                ("lost", "No such file"),
            ):
                with pytest.raises(WharfError, match=why):
                    await make(tmp_path).create("v", name)

        asyncio.run(scenario())
        assert sorted(plugin.volumes) == ["v-blind", "v-good", "v-skips"]
