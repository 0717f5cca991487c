"""The table in the kernel, for each typical setup: ``golden/*.nft`` document the rules.

Each file's header describes the setup. ``WHARF_GOLDEN=write`` writes them again.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from server.networks.netlink.tests.space import own_namespace
from server.networks.nftables import rules
from server.networks.nftables.firewall import Firewall
from server.networks.nftables.mesh import Element
from server.networks.nftables.rules import BridgeRules, LinkRule, Publication

pytestmark = pytest.mark.root

GOLDEN = Path(__file__).parent / "golden"
BRIDGE = BridgeRules("docker0", (ip_network("172.17.0.0/16"),))
USER = BridgeRules("br-user", (ip_network("172.18.0.0/16"),))
DUAL = BridgeRules("br-dual", (ip_network("172.19.0.0/16"), ip_network("fd00:19::/64")))
WEB = Publication("docker0", "tcp", "0.0.0.0", 8080, "172.17.0.2", 80)


@dataclass(frozen=True)
class Setup:
    """``docker`` describes the setup for an administrator; ``endpoints`` are owner → elements."""

    docker: str
    bridges: tuple[BridgeRules, ...] = (BRIDGE,)
    publications: tuple[Publication, ...] = ()
    links: tuple[LinkRule, ...] = field(default=())

    @property
    def elements(self) -> list[Element]:
        return rules.port_elements(self.publications) + rules.link_elements(self.links)


SETUPS: dict[str, Setup] = {
    "default-bridge": Setup("the daemon has started"),
    "user-network": Setup("docker network create user", (BRIDGE, USER)),
    "dual-stack-network": Setup("docker network create --ipv6 --subnet fd00:19::/64 dual", (BRIDGE, DUAL)),
    "internal-network": Setup("docker network create --internal user", (BRIDGE, replace(USER, internal=True))),
    "no-icc": Setup(
        "docker network create -o com.docker.network.bridge.enable_icc=false user", (BRIDGE, replace(USER, icc=False))
    ),
    "no-icc-link": Setup(
        "dockerd --icc=false; docker run --name db --expose 5432 …; docker run --link db …",
        (replace(BRIDGE, icc=False),),
        links=(LinkRule("172.17.0.3", "172.17.0.2", "tcp", 5432),),
    ),
    "no-masquerade": Setup(
        "docker network create -o com.docker.network.bridge.enable_ip_masquerade=false user",
        (BRIDGE, replace(USER, masquerade4=False, masquerade6=False)),
    ),
    "source-address": Setup(
        "docker network create -o com.docker.network.host_ipv4=192.0.2.7 user",
        (BRIDGE, replace(USER, source4="192.0.2.7")),
    ),
    "published-port": Setup("docker run -p 8080:80 …", publications=(WEB,)),
    "published-port-one-address": Setup(
        "docker run -p 127.0.0.1:8080:80 -p 192.0.2.1:53:53/udp …",
        publications=(
            replace(WEB, host="127.0.0.1"),
            Publication("docker0", "udp", "192.0.2.1", 53, "172.17.0.2", 53),
        ),
    ),
    "published-range": Setup(
        "docker run -p 7000-8999:7000-8999 -p 100-102:200-202/sctp …",
        publications=(
            Publication("docker0", "tcp", "0.0.0.0", 7000, "172.17.0.2", 7000, 2000),
            Publication("docker0", "sctp", "0.0.0.0", 100, "172.17.0.2", 200, 3),
        ),
    ),
    "published-port-dual-stack": Setup(
        "docker run --network dual -p 8080:80 …",
        (BRIDGE, DUAL),
        (
            Publication("br-dual", "tcp", "0.0.0.0", 8080, "172.19.0.2", 80),
            Publication("br-dual", "tcp", "::", 8080, "fd00:19::2", 80),
        ),
    ),
    "gateway-mode-routed": Setup(
        "docker network create -o com.docker.network.bridge.gateway_mode_ipv4=routed user; "
        "docker run --network user -p 80 …",
        (BRIDGE, replace(USER, mode4="routed")),
        (Publication("br-user", "tcp", "", 0, "172.18.0.2", 80, translate=False),),
    ),
    "gateway-mode-nat-unprotected": Setup(
        "docker network create -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected user",
        (BRIDGE, replace(USER, mode4="nat-unprotected")),
    ),
    "gateway-mode-isolated": Setup(
        "docker network create --internal -o com.docker.network.bridge.gateway_mode_ipv4=isolated user",
        (BRIDGE, replace(USER, mode4="isolated", internal=True)),
    ),
    "trusted-interface": Setup(
        "docker network create -o com.docker.network.bridge.trusted_host_interfaces=vxlan.1 user",
        (BRIDGE, replace(USER, trusted=("vxlan.1",))),
    ),
}


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("WHARF_GOLDEN") == "write":
        path.write_text(text)
    golden = path.read_text() if path.exists() else ""
    difference = "".join(difflib.unified_diff(golden.splitlines(True), text.splitlines(True), path.name, "kernel"))
    assert not difference, f"WHARF_GOLDEN=write takes the new state over\n{difference}"


def elements_only(dump: str) -> str:
    """The non-empty sets and maps of a dump; one element per line, sorted, as the kernel's order is unspecified."""
    shown = []
    for match in re.finditer(r"\t(set|map) (\w+) \{\n(.*?)\n\t\}", dump, re.DOTALL):
        kind, name, body = match.groups()
        comment = re.search(r'comment "([^"]*)"', body)
        assert comment, name
        elements = re.search(r"elements = \{(.*)\}", body, re.DOTALL)
        if elements:
            items = sorted(" ".join(item.split()) for item in elements[1].split(",\n"))
            items = [part.strip() for item in items for part in item.split(",")]
            shown.append(f"{kind} {name}  # {comment[1]}\n" + "".join(f"\t{item}\n" for item in sorted(items)))
    return "\n".join(shown)


def table(bridges: Sequence[BridgeRules], elements: Sequence[Element]) -> str:
    """The kernel's table after the elements were added one by one; a rewrite gives the same."""
    firewall = Firewall("docker0")
    firewall.start({}, ())
    for bridge in bridges:
        firewall.add_bridge(bridge)
    firewall.add("endpoint", elements)
    dump = firewall.dump()
    again = Firewall("docker0")
    again.start({"endpoint": elements}, bridges)
    assert elements_only(again.dump()) == elements_only(dump)
    firewall.remove("endpoint")
    for bridge in bridges:
        firewall.remove_bridge(bridge.bridge)
    assert elements_only(firewall.dump()) == "", "an element stayed behind"
    again.stop()
    firewall.stop()
    return dump


def test_the_table_itself() -> None:
    with own_namespace():
        compare(
            "table",
            "# The whole table of an engine without networks. Nothing but the sets' elements changes.\n"
            + table((), ()),
        )


@pytest.mark.parametrize("name", SETUPS)
def test_setup(name: str) -> None:
    setup = SETUPS[name]
    with own_namespace():
        dump = table(setup.bridges, setup.elements)
    compare(name, f"# {setup.docker}\n\n{elements_only(dump)}")


def test_flags_change_the_rules() -> None:
    accepted = "ct state established,related accept\n\t\t"
    with own_namespace():
        for policy, words in (
            (rules.Policy(mark=rules.mark_expression(16, 255)), "meta mark & 0x000000ff == 0x00000010 accept"),
            (rules.Policy(mark=rules.mark_expression(7, None)), "meta mark 0x00000007 accept"),
            (rules.Policy(direct=True), f"{accepted}oifname . ip daddr . meta l4proto . th dport @open4 accept"),
        ):
            plain, changed = Firewall("docker0"), Firewall("docker0", policy=policy)
            plain.start({}, (BRIDGE,))
            assert words not in plain.dump()
            changed.start({}, (BRIDGE,))
            assert words in changed.dump()
            changed.stop()


def test_elements_of_two_networks_stay_for_the_second() -> None:
    """A following network may have the subnet of an earlier one whose device still exists."""
    with own_namespace():
        firewall = Firewall("docker0")
        firewall.start({}, ())
        firewall.add_bridge(USER)
        firewall.add_bridge(replace(USER, bridge="br-next"))
        firewall.remove_bridge(USER.bridge)
        left = elements_only(firewall.dump())
        again = Firewall("docker0")
        again.start({}, (replace(USER, bridge="br-next"),))
        assert left == elements_only(again.dump())
        again.remove_bridge("br-next")
        assert elements_only(again.dump()) == ""
        firewall.stop()


def test_every_golden_file_has_a_test() -> None:
    assert {path.stem for path in GOLDEN.glob("*.nft")} == {*SETUPS, "table"}
