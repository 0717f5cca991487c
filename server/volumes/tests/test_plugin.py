"""Volume plugins over their sockets: use, listing; and misbehaving ones."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from api_models.filters import Filters
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.plugins.tests.plugins import Plugin
from server.volumes import query
from server.volumes.tests.stores import MemoryBus, MemoryStore, listed, make

JSON = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    with Plugin(tmp_path / "odd.sock") as running:
        yield running


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


def test_a_lock_exists_while_a_task_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        volumes = make(tmp_path)
        made = await asyncio.gather(*(volumes.create("same") for _ in range(8)), volumes.remove("same", force=True))
        assert made[0] is not None
        with pytest.raises(WharfError):
            await volumes.inspect("nosuch")
        assert len(volumes._locks) == 0

    asyncio.run(scenario())
