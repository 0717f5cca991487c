"""Volume plugins over their sockets: discovery, activation, use, listing; and misbehaving ones."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from api_models.filters import Filters
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.plugins.discovery import Plugins
from server.plugins.tests.plugins import Plugin
from server.volumes import query
from server.volumes.local import LocalDriver
from server.volumes.plugin import VolumePlugins
from server.volumes.service import Volumes
from server.volumes.tests.stores import MemoryBus, MemoryStore

JSON = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    with Plugin(tmp_path / "odd.sock") as running:
        yield running


def make(tmp_path: Path, store: MemoryStore | None = None, bus: MemoryBus | None = None) -> Volumes:
    plugins = VolumePlugins(Plugins((tmp_path,), (tmp_path / "specs",)))
    return Volumes(store or MemoryStore(), bus or MemoryBus(), LocalDriver(tmp_path / "volumes"), plugins)


async def listed(volumes: Volumes, **filters: str) -> tuple[list[tuple[str, str]], list[str]]:
    answer = await query.listing(volumes, Filters({key: (value,) for key, value in filters.items()}))
    return [(row["Name"], row["Driver"]) for row in answer["Volumes"]], answer["Warnings"] or []


def test_a_plugins_volume(tmp_path: Path, plugin: Plugin) -> None:
    async def scenario() -> None:
        volumes = make(tmp_path)
        volume = await volumes.create("vol", "odd", options={"a": "b"})
        assert (volume.driver, volume.scope) == ("odd", "global")
        assert await volumes.mount("vol", "c1:/x") == "/mnt/vol"
        assert await volumes.mount("vol", "c2:/x") == "/mnt/vol"
        await volumes.unmount("vol", "c1:/x")
        await volumes.unmount("vol", "c2:/x")
        with pytest.raises(WharfError, match=r"^create other: VolumeDriver.Create: no such thing$"):
            await volumes.create("other", "odd", options={"bad": "1"})
        with pytest.raises(WharfError, match="driver 'odd' already has volume 'vol'") as caught:
            await volumes.create("vol", "local")
        assert caught.value.kind is Kind.CONFLICT
        await volumes.remove("vol")
        assert volumes.driver_names() == ["local", "odd"]
        with pytest.raises(WharfError, match='error looking up volume plugin nosuch: plugin "nosuch" not found'):
            await volumes.create("vol", "nosuch")

    asyncio.run(scenario())
    assert plugin.words() == [
        *("Plugin.Activate", "Capabilities", "Get", "Create", "Path", "Mount", "Unmount"),
        *("Get", "Create", "Get", "Get", "Remove"),
    ]
    assert plugin.calls[3][1] == {"Name": "vol", "Opts": {"a": "b"}}


def test_volumes_that_only_the_plugin_knows(tmp_path: Path, plugin: Plugin) -> None:
    created = "2024-05-06T07:08:09.123456789+02:00"
    plugin.volumes["theirs"] = {"Name": "theirs", "Mountpoint": "/a", "CreatedAt": created, "Status": {"k": [1]}}

    async def scenario() -> None:
        bus = MemoryBus()
        volumes = make(tmp_path, bus=bus)
        await volumes.create("ours")
        assert await listed(volumes) == ([("ours", "local"), ("theirs", "odd")], [])
        assert await listed(volumes, driver="odd") == await listed(volumes, name="thei") == ([("theirs", "odd")], [])
        assert await listed(volumes, driver="local") == ([("ours", "local")], [])
        assert await listed(volumes, label="x") == ([], [])
        assert volumes.driver_names() == ["local", "odd"]
        shown = query.show(volumes, await volumes.inspect("theirs"))
        assert shown == {
            "CreatedAt": "2024-05-06T05:08:09Z",
            "Driver": "odd",
            "Labels": None,
            "Mountpoint": "/a",
            "Name": "theirs",
            "Options": None,
            "Scope": "global",
            "Status": {"k": [1]},
        }
        # A container's `-v theirs:/x` uses the plugin's volume, and its failed create removes nothing.
        used = await volumes.create("theirs", reference="c1")
        assert (used.driver, used.made_for) == ("odd", "")
        assert await listed(volumes, dangling="false") == ([("theirs", "odd")], [])
        with pytest.raises(WharfError, match=r"^remove theirs: volume is in use - \[c1\]$"):
            await volumes.remove("theirs")
        volumes.release("theirs", "c1")
        await volumes.remove("theirs")
        assert plugin.volumes == {}
        with pytest.raises(WharfError, match=r"^get theirs: no such volume$"):
            await volumes.inspect("theirs")
        assert bus.events == [("create", "ours"), ("destroy", "theirs")]

    asyncio.run(scenario())


def test_volumes_that_the_plugin_has_lost(tmp_path: Path, plugin: Plugin) -> None:
    async def scenario() -> None:
        store = MemoryStore()
        volumes = make(tmp_path, store)
        for name in ("one", "two"):
            await volumes.create(name, "odd")
        volumes.refer("two", "c1")
        plugin.volumes.clear()
        assert await listed(volumes) == ([], [])
        for name in ("one", "two"):
            with pytest.raises(WharfError, match="no such volume") as caught:
                await volumes.inspect(name)
            assert caught.value.kind is Kind.NOT_FOUND
        # A referenced volume keeps its record: its name must not be reused.
        assert list(store.kept) == ["two"]
        with pytest.raises(WharfError, match="the volume was not found in the driver") as caught:
            await volumes.create("two", "odd")
        assert caught.value.kind is Kind.CONFLICT
        assert (await volumes.create("one", "local")).driver == "local"

    asyncio.run(scenario())


def test_a_plugin_that_has_exited(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryStore()
        volumes = make(tmp_path, store)
        with Plugin(tmp_path / "odd.sock"):
            await volumes.create("kept", "odd", labels={"a": "b"})
        assert await listed(volumes, label="a=b") == ([("kept", "odd")], [])
        with pytest.raises(WharfError) as caught:
            await volumes.inspect("kept")
        gone = (
            'error while checking if volume "kept" exists in driver "odd": error looking up volume plugin odd: '
            'plugin "odd" not found'
        )
        assert (caught.value.kind, caught.value.message) == (Kind.NOT_FOUND, f"get kept: {gone}")
        # A socket without a listener.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "odd.sock"))
        assert await listed(volumes) == ([("kept", "odd")], [])
        with pytest.raises(WharfError, match=r"^remove kept: |^get kept: .*[Cc]onnection refused") as caught:
            await volumes.remove("kept")
        assert caught.value.kind is Kind.INTERNAL
        with pytest.raises(WharfError, match=r"got an error while checking the driver: .*refused") as caught:
            await volumes.create("kept")
        assert caught.value.kind is Kind.CONFLICT
        # Other volumes can still be created and found.
        assert (await volumes.create("new")).driver == "local"
        (tmp_path / "odd.sock").unlink()
        # It returns: a new socket of the same name is activated again.
        with Plugin(tmp_path / "odd.sock") as again:
            again.volumes["kept"] = {"Name": "kept"}
            assert (await volumes.inspect("kept")).labels == {"a": "b"}
            assert again.words() == ["Plugin.Activate", "Capabilities", "Get"]
        await volumes.remove("kept", force=True)
        assert list(store.kept) == ["new"]

    asyncio.run(scenario())


def test_a_plugin_that_never_answers(tmp_path: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def wait(_: dict[str, Any]) -> bytes:
        never.wait(60)
        return b""

    async def scenario() -> None:
        volumes = make(tmp_path)
        await volumes.create("theirs", "odd")
        await volumes.create("ours")
        plugin.instead |= {"List": wait, "Get": wait}
        monkeypatch.setitem(timeouts._SECONDS, "volume.ask", 0.2)
        rows, warnings = await listed(volumes)
        assert rows == [("ours", "local"), ("theirs", "odd")]
        assert warnings == ["list odd: volume.ask: not done after 0.2 s"]
        with pytest.raises(WharfError, match="not done after") as caught:
            await volumes.inspect("theirs")
        assert caught.value.kind is Kind.DEADLINE_EXCEEDED
        # An unknown name becomes a volume of our own driver: the plugin timed out.
        assert (await volumes.create("other")).driver == "local"
        # A plugin that doesn't even answer its activation.
        with Plugin(tmp_path / "mute.sock") as mute:
            mute.instead["Plugin.Activate"] = wait
            assert [name for name, _ in (await listed(volumes))[0]] == ["other", "ours", "theirs"]
            never.set()

    try:
        asyncio.run(scenario())
    finally:
        never.set()


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        pytest.param([{"Name": "mine", "Mountpoint": "/evil"}, {"Name": "b"}], ["b", "mine"], id="a name of ours"),
        pytest.param(
            [None, 7, {}, {"Name": 3}, {"Name": ""}, {"Name": "b", "Mountpoint": []}], ["b", "mine"], id="odd"
        ),
        pytest.param([{"Name": "b", "CreatedAt": "yesterday", "Status": "fine"}] * 2, ["b", "mine"], id="twice"),
        pytest.param([{"Name": "b", "CreatedAt": "9999-12-31T23:59:59-23:00"}], ["b", "mine"], id="a year 10000"),
        pytest.param({"Name": "b"}, ["mine"], id="no list"),
        pytest.param(None, ["mine"], id="null"),
    ],
)
def test_a_plugin_with_a_malformed_list(tmp_path: Path, plugin: Plugin, rows: Any, names: list[str]) -> None:
    plugin.instead["List"] = lambda _: {"Volumes": rows}

    async def scenario() -> None:
        volumes = make(tmp_path)
        mine = await volumes.create("mine")
        answer = await query.listing(volumes, Filters())
        assert [row["Name"] for row in answer["Volumes"]] == names
        shown = {row["Name"]: row for row in answer["Volumes"]}
        assert (shown["mine"]["Driver"], shown["mine"]["Mountpoint"]) == ("local", mine.mountpoint)
        if "b" in shown:
            assert (shown["b"]["Mountpoint"], shown["b"]["CreatedAt"]) == ("", "0001-01-01T00:00:00Z")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "it did not answer in HTTP"),
        (b"220 mail.example.org ESMTP\r\n", "it did not answer in HTTP"),
        (JSON + b"[]", "did not answer with a JSON object"),
        (JSON + b'{"Volumes": [', "did not answer with a JSON object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "its answer was cut off"),
        (JSON + b" " * (16 << 20) + b"{}", "its answer is longer than 16777216 bytes"),
        (b"HTTP/1.1 500 Oops\r\n\r\nwent wrong", "VolumeDriver.List: went wrong"),
        (JSON + orjson.dumps({"Err": "not today"}), "VolumeDriver.List: not today"),
    ],
)
def test_a_plugin_that_breaks_the_protocol(tmp_path: Path, plugin: Plugin, answer: bytes, reason: str) -> None:
    plugin.instead["List"] = lambda _: answer

    async def scenario() -> None:
        volumes = make(tmp_path)
        await volumes.create("theirs", "odd")
        rows, warnings = await listed(volumes)
        assert rows == [("theirs", "odd")]
        assert len(warnings) == 1
        assert warnings[0].startswith("list odd: ")
        assert reason in warnings[0]

    asyncio.run(scenario())


def test_only_the_first_value_of_an_answer_is_read(tmp_path: Path, plugin: Plugin) -> None:
    """As by Go's decoder: some plugins answer with an error and then with a volume."""

    async def scenario() -> None:
        volumes = make(tmp_path)
        plugin.instead["Get"] = lambda _: JSON + b'{"Err": "no such volume"}\n{"Volume": {"Name": ""}}\n'
        with pytest.raises(WharfError, match="no such volume"):
            await volumes.inspect("theirs")
        assert (await volumes.create("theirs", "odd")).driver == "odd"

    asyncio.run(scenario())


def test_a_plugin_with_wrong_answers_about_a_volume(tmp_path: Path, plugin: Plugin) -> None:
    async def scenario() -> None:
        volumes = make(tmp_path)
        await volumes.create("theirs", "odd")
        # An answer about another name doesn't count.
        plugin.instead["Get"] = lambda _: {"Volume": {"Name": "another", "Mountpoint": "/etc"}}
        with pytest.raises(WharfError, match="no such volume"):
            await volumes.inspect("unknown")
        assert (await volumes.create("unknown")).driver == "local"
        del plugin.instead["Get"]
        for path in ("relative/path", "", None, 7):
            plugin.instead["Mount"] = lambda _, path=path: {"Mountpoint": path}  # type: ignore[misc]
            with pytest.raises(WharfError, match="answered with no absolute path"):
                await volumes.mount("theirs", "c1")
        assert await volumes.unmount("theirs", "c1") is False

    asyncio.run(scenario())


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


def test_a_lock_exists_while_a_task_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        volumes = make(tmp_path)
        made = await asyncio.gather(*(volumes.create("same") for _ in range(8)), volumes.remove("same", force=True))
        assert made[0] is not None
        with pytest.raises(WharfError):
            await volumes.inspect("nosuch")
        assert len(volumes._locks) == 0

    asyncio.run(scenario())
