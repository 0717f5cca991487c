"""Notifications of changed rules, links and addresses on this host."""

import asyncio
import subprocess

import pytest
import uvloop

from server.networks.netlink.tests.space import WAIT, own_namespace
from server.networks.netlink.watch import Changes, LinkChange, Watch
from server.networks.nftables.libnftables import generation

pytestmark = pytest.mark.root


class Reports:
    """All reports of a watch."""

    def __init__(self) -> None:
        self.all: list[Changes] = []
        self.told = asyncio.Event()

    def add(self, changes: Changes) -> None:
        self.all.append(changes)
        self.told.set()

    async def until(self, text: str, *, rules: bool = False) -> Changes:
        """Runs a batch of ip(8) or nft(8); returns the following report."""
        self.told.clear()
        argv = ["nft", "-f", "-"] if rules else ["ip", "-batch", "-"]
        subprocess.run(argv, input=text, text=True, timeout=WAIT, check=True)  # noqa: ASYNC221
        await asyncio.wait_for(self.told.wait(), WAIT)
        return self.all[-1]


def test_each_reload_of_a_firewall_is_reported() -> None:
    """In a uvloop, like wharfd's."""
    rule = 'add rule ip big c ip saddr 192.0.2.1 counter accept comment "many of them"\n'
    text = "add table ip big\nflush table ip big\nadd chain ip big c\n" + rule * 2000

    async def body() -> None:
        reports = Reports()
        watch = Watch(reports.add, "own")
        try:
            for _ in range(3):
                assert (await reports.until(text, rules=True)).rules
        finally:
            watch.close()

    with own_namespace():
        uvloop.run(body())


def test_an_overflow_of_the_socket_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.networks.netlink.watch._BUFFER", 4096)
    text = "".join(f"link add d{number} type bridge\n" for number in range(40))

    async def body() -> None:
        reports = Reports()
        watch = Watch(reports.add)
        try:
            assert (await reports.until(text)).lost
            # later changes are reported as usual
            await asyncio.sleep(0.5)
            changes = await reports.until("link del d7\n")
            assert [change.name for change in changes.links.values() if change.gone] == ["d7"]
        finally:
            watch.close()

    with own_namespace():
        uvloop.run(body())


def test_which_transactions_deleted_elements_of_the_table() -> None:
    async def body() -> None:
        reports = Reports()
        watch = Watch(reports.add, "own")
        try:
            text = "table inet {0} {{\nset s {{ type inet_service; elements = {{ 1, 2, 3 }}; }}\n}}\n"
            changes = await reports.until(text.format("own") + text.format("foreign"), rules=True)
            assert not changes.deletions
            assert not (await reports.until("delete element inet foreign s { 2 }\n", rules=True)).deletions
            assert (await reports.until("delete element inet own s { 2 }\n", rules=True)).deletions == {generation()}
            assert (await reports.until("flush set inet own s\n", rules=True)).deletions == {generation()}
        finally:
            watch.close()

    with own_namespace():
        uvloop.run(body())


def test_links_and_addresses() -> None:
    async def body() -> None:
        reports = Reports()
        watch = Watch(reports.add)
        try:
            text = "link add br0 index 90 type bridge\n"
            text += "link add port0 index 91 type veth peer name peer0\nlink set port0 master br0\nlink set port0 up\n"
            changes = await reports.until(text)
            assert changes.links[91] == LinkChange(91, "port0", master=90)
            changes = await reports.until("link set port0 nomaster\naddress add 192.0.2.1/24 dev br0\n")
            assert changes.links[91].master == 0
            assert not changes.addresses
            changes = await reports.until("address del 192.0.2.1/24 dev br0\nlink set port0 down\n")
            assert changes.addresses == {90}
            assert not changes.links[91].up
            assert (await reports.until("link del br0\n")).links[90].gone
        finally:
            watch.close()

    with own_namespace():
        uvloop.run(body())
