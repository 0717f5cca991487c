"""The rules that redirect DNS questions, as iptables-save prints them and as node images rewrite them."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.proxy.dnsmessage import NOERROR, code
from server.networks.dns.redirect import redirect
from server.networks.netlink import netns
from server.networks.netlink.tests.space import WAIT, own_namespace
from server.networks.nftables import nfnetlink, xtables
from server.networks.tests.lan import OUTSIDE, exchange, nft, query, resolve, scenario
from server.networks.tests.world import World

TOOLS = shutil.which("iptables-nft-save") and shutil.which("iptables-nft-restore")
GATEWAY = "172.31.0.1"


def iptables(path: str, *command: str, text: str = "") -> str:
    """The output of iptables' program inside the namespace at ``path``."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", *command], input=text, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def saved(path: str) -> list[str]:
    return [line for line in iptables(path, "iptables-nft-save").splitlines() if line.startswith("-A")]


def rewrite(path: str, address: str) -> None:
    """The steps of the entrypoints of node images: ``address`` instead of 127.0.0.11, also for questions of pods."""
    text = iptables(path, "iptables-nft-save").replace("-d 127.0.0.11", f"-d {address}")
    text = re.sub(r"(?m)^-A OUTPUT (.*) -j DOCKER_OUTPUT$", r"\g<0>\n-A PREROUTING \1 -j DOCKER_OUTPUT", text)
    iptables(path, "iptables-nft-restore", text=text.replace("--to-source :53", f"--to-source {address}:53"))


def expected(address: str, udp: int, tcp: int) -> list[str]:
    return [
        f"-A DOCKER_OUTPUT -d {address}/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:{tcp}",
        f"-A DOCKER_OUTPUT -d {address}/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:{udp}",
        f"-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport {tcp} -j SNAT --to-source :53",
        f"-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport {udp} -j SNAT --to-source :53",
    ]


def test_decodes_what_it_encodes() -> None:
    rule = [
        *xtables.address(xtables.DESTINATION, GATEWAY),
        *xtables.ports(socket.IPPROTO_UDP, destination=53),
        xtables.counter(),
        xtables.translate_destination("127.0.0.11", 40001),
    ]
    assert xtables.matched_address(rule, xtables.DESTINATION) == GATEWAY
    assert xtables.matched_address(rule, xtables.SOURCE) is None
    assert xtables.destination(rule) == ("127.0.0.11", 40001)
    assert xtables.destination(rule[:-1]) is None


@pytest.mark.root
@pytest.mark.skipif(not TOOLS, reason="needs iptables-nft")
def test_rules_are_those_of_iptables(tmp_path: Path) -> None:
    path = str(tmp_path / "space")
    with own_namespace(), netns.create(path):
        try:
            redirect(path, 40001, 40002)
            jumps = [
                "-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT",
                "-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING",
            ]
            assert saved(path) == [*jumps, *expected("127.0.0.11", 40001, 40002)]
            rewrite(path, GATEWAY)
            before = saved(path)
            assert f"-A PREROUTING -d {GATEWAY}/32 -j DOCKER_OUTPUT" in before
            redirect(path, 40001, 40002)
            assert saved(path) == before, "rules that lead to the ports must stay"
            redirect(path, 40003, 40004)
            assert saved(path)[3:] == expected(GATEWAY, 40003, 40004), "the rewritten address must stay"
            iptables(path, "iptables-nft", "-t", "nat", "-F")
            redirect(path, 40005, 40006)
            assert saved(path) == [*jumps, *expected("127.0.0.11", 40005, 40006)]
        finally:
            netns.delete(path)


@pytest.mark.root
@pytest.mark.skipif(not TOOLS, reason="needs iptables-nft")
def test_a_container_with_many_rules_keeps_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "space")
    with own_namespace(), netns.create(path):
        try:
            redirect(path, 40001, 40002)
            flood = [f"-A DOCKER_OUTPUT -d 10.1.{number // 256}.{number % 256}/32 -j RETURN" for number in range(5000)]
            text = "\n".join(["*nat", *flood, "COMMIT", ""])
            iptables(path, "iptables-nft-restore", "--noflush", text=text)
            reads: list[int] = []
            split = nfnetlink._split

            def counted(data: bytes) -> Iterator[tuple[int, bytes]]:
                reads.append(len(data))
                return split(data)

            monkeypatch.setattr(nfnetlink, "_split", counted)
            redirect(path, 40003, 40004)
            assert "more than 256 rules (DNS_RULES)" in caplog.text
            assert sum(reads) < 200_000
            assert not any("40003" in line for line in saved(path))
        finally:
            netns.delete(path)


@pytest.mark.root
def test_a_kernel_without_the_extensions_gets_rules_of_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xtables, "_NAMES", {socket.IPPROTO_TCP: "no-tcp", socket.IPPROTO_UDP: "no-udp"})
    path = str(tmp_path / "space")
    with own_namespace(), netns.create(path):
        try:
            redirect(path, 40001, 40002)
            with netns.inside(path):
                assert not nfnetlink.rules("nat", "DOCKER_OUTPUT", 10)
                assert "udp dport 53 dnat to 127.0.0.11:40001" in nft("list ruleset")
                nft("add rule ip wharf-dns output ip daddr 192.0.2.1 accept")
            redirect(path, 40001, 40002)
            with netns.inside(path):
                assert "192.0.2.1" in nft("list ruleset"), "rules that lead to the ports must stay"
            redirect(path, 40001, 40003)
            with netns.inside(path):
                text = nft("list ruleset")
                assert "192.0.2.1" not in text
                assert "tcp dport 53 dnat to 127.0.0.11:40003" in text
                assert "40002" not in text
                nft("".join("add rule ip wharf-dns output ip daddr 192.0.2.1 accept\n" for _ in range(300)))
            redirect(path, 40001, 40004)
            with netns.inside(path):
                assert "40004" not in nft("list ruleset")
        finally:
            netns.delete(path)


@pytest.mark.root
@pytest.mark.skipif(not TOOLS, reason="needs iptables-nft")
def test_names_resolve_at_the_address_of_a_rewrite(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        one, path = await world.run("one", network="net")
        gateway = str(world.endpoint(one, "net")["Gateway"])
        await asyncio.to_thread(rewrite, path, gateway)
        for tcp in (False, True):
            answer = await asyncio.to_thread(exchange, path, query("one"), tcp=tcp, server=gateway)
            assert code(answer) == NOERROR
            assert socket.inet_aton(world.address(one, "net")) in answer
        await world.kill()
        await world.open()
        answer = await asyncio.to_thread(exchange, path, query("one"), server=gateway)
        assert code(answer) == NOERROR
        _, other = await world.run("two", network="net")
        assert await asyncio.to_thread(resolve, other, "one") == (NOERROR, [world.address(one, "net")])

    scenario(tmp_path, body, dns=(OUTSIDE,))
