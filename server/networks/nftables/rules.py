"""The content of the firewall's table: fixed chains, and sets and maps, of which only the elements change.

A bridge, a published port or a link is a few elements (:func:`bridge_elements`, :func:`port_elements`,
:func:`link_elements`), so attaching a container to a network changes no rule. The table is named after the engine's
default bridge, so that several engines can coexist. ``tests/golden`` shows it for each typical setup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from server.networks.ipam.allocator import Network
from server.networks.nftables import mesh as mesh_rules
from server.networks.nftables.mesh import Element, MeshRule
from server.networks.nftables.sets import FAMILY_SETS, MAP_NAMES, SET_NAMES, SETS

#: The chain for an administrator's own rules: evaluated before all of ours, never flushed by us.
USER_CHAIN = "wharf-user"


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """The treatment of one bridge's traffic. ``mode4``/``mode6``: nat, nat-unprotected, routed or isolated.
    ``ingress``: the bridge of a swarm's ingress network, whose containers have another default route. ``node``: this
    host's own address there, to which containers on other hosts answer."""

    bridge: str
    subnets: tuple[Network, ...]
    internal: bool = False
    icc: bool = True
    masquerade4: bool = True
    masquerade6: bool = True
    mode4: str = "nat"
    mode6: str = "nat"
    trusted: tuple[str, ...] = ()
    source4: str = ""
    source6: str = ""
    ingress: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """The flags of the daemon that change the rules of all bridges.

    ``mark``: an nft expression (``meta mark ...``) of packets that are accepted on all ports; "" for none. ``direct``:
    accept packets to a published port at the container's own address.
    """

    mark: str = ""
    direct: bool = False


_NO_POLICY = Policy()


def mark_expression(mark: int, mask: int | None) -> str:
    """The nft expression that matches packets whose firewall mark is ``mark``, or has these bits within ``mask``."""
    return f"meta mark {mark}" if mask is None else f"meta mark and {mask} == {mark}"


@dataclass(frozen=True, slots=True)
class Publication:
    """``count`` host ports from ``host_port`` on at ``host`` lead to ports from ``port`` on of ``target``.

    Without ``translate`` the container's ports are only opened (gateway mode routed, or a forwarder serves the host's
    address because the families differ).
    """

    bridge: str
    protocol: str
    host: str
    host_port: int
    target: str
    port: int
    count: int = 1
    translate: bool = True


@dataclass(frozen=True, slots=True)
class LinkRule:
    """A linked client may reach one exposed port of the server although the bridge has icc disabled."""

    client: str
    server: str
    protocol: str
    port: int


_HOOKS: dict[str, str] = {
    USER_CHAIN: "",
    "guard": "type filter hook prerouting priority raw; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "output": "type nat hook output priority dstnat; policy accept;",
    "publish": "",
    "mesh": "",
    "forward": "type filter hook forward priority filter; policy accept;",
    "router": "",
    "inbound": "",
    "nearby": "",
    "between": "",
    "exposed": "",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
}

_CHAINS: dict[str, str] = {
    # A port published at 127.0.0.1 is for the host's own clients. The translation precedes the kernel's check of such
    # addresses, and on our bridges route_localnet disables the check.
    "guard": """
		iifname != "lo" ip daddr 127.0.0.0/8 drop
""",
    "prerouting": """
		fib daddr type local jump publish
""",
    # ::1 can't be translated: the kernel never routes it off the loopback device. The forwarder serves it.
    "output": """
		ip6 daddr ::1 return
		fib daddr type local jump publish
""",
    # A container has no way back to a link-local address of another link. The forwarder serves these clients.
    "publish": """
		ip6 saddr fe80::/10 return
		dnat ip to ip daddr . meta l4proto . th dport map @ports4
		dnat ip to meta l4proto . th dport map @ports4_any
		dnat ip to ip daddr . meta l4proto . th dport map @ranges4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6
		dnat ip6 to meta l4proto . th dport map @ports6_any
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges6
		jump mesh
""",
    # See ``mesh``.
    "mesh": "",
    "forward": f"""
		jump {USER_CHAIN}
		iifname != @bridges oifname != @bridges goto router
		ct state established,related accept
		ct status dnat oifname . ip daddr . meta l4proto . th dport @open4 accept
		ct status dnat oifname . ip6 daddr . meta l4proto . th dport @open6 accept
		iifname != @bridges goto inbound
		oifname @bridges goto between
		iifname @internal drop
""",
    "router": "",
    "inbound": """
		oifname @internal drop
		iifname . oifname @trusted goto nearby
		goto exposed
""",
    # As from the same bridge without icc: also published ports are reached by a route.
    "nearby": """
		oifname . ip daddr . meta l4proto . th dport @open4 accept
		oifname . ip6 daddr . meta l4proto . th dport @open6 accept
		goto exposed
""",
    "between": """
		iifname . oifname @icc accept
		ip saddr . ip daddr . meta l4proto . th dport @links4 accept
		ip6 saddr . ip6 daddr . meta l4proto . th dport @links6 accept
		iifname . oifname @closed drop
		iifname @internal drop
		oifname @internal drop
		goto exposed
""",
    # What anybody may reach at a container's own address: from outside, and from other networks, as in dockerd 29.
    "exposed": """
		oifname . ip daddr . meta l4proto . th dport @routed4 accept
		oifname . ip6 daddr . meta l4proto . th dport @routed6 accept
		meta l4proto 1 oifname @direct4 accept
		meta l4proto 58 oifname @direct6 accept
		meta nfproto ipv4 oifname @unprotected4 accept
		meta nfproto ipv6 oifname @unprotected6 accept
		drop
""",
    # A published port of the same bridge, or of the routing mesh: the answer must return through the host.
    "postrouting": """
		ct status dnat snat ip to oifname map @node4
		ct status dnat oifname @ingress masquerade
		ct status dnat oifname . ip saddr @own4 masquerade
		ct status dnat oifname . ip6 saddr @own6 masquerade
		oifname . ip saddr @own4 return
		oifname . ip6 saddr @own6 return
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
		snat ip to ip saddr map @source4
		snat ip6 to ip6 saddr map @source6
		ip saddr @masquerade4 masquerade
		ip6 saddr @masquerade6 masquerade
""",
}

#: Only if this engine enabled forwarding: it must not make the host a router for others. Traffic of other bridges
#: (another engine's, a hypervisor's) is not affected.
_ROUTER_GUARD = """
		meta iifkind != "bridge" meta oifkind != "bridge" drop
"""


def table_name(bridge: str) -> str:
    """The table of the engine whose default bridge is ``bridge``."""
    return f"wharf-{bridge}"


def skeleton(table: str) -> str:
    """The table with its sets and empty chains; an existing one is not changed."""
    body = [SETS, FAMILY_SETS.format(n="4", address="ipv4_addr"), FAMILY_SETS.format(n="6", address="ipv6_addr")]
    for chain, hook in _HOOKS.items():
        body.append(f"\tchain {chain} {{\n\t\t{hook}\n\t}}\n" if hook else f"\tchain {chain} {{\n\t}}\n")
    return f"table inet {table} {{\n{''.join(body)}}}\n"


def whole(
    table: str,
    elements: Iterable[Element],
    *,
    guard_router: bool,
    policy: Policy = _NO_POLICY,
    mesh: Iterable[MeshRule] = (),
) -> str:
    """One transaction after which the table has exactly our rules and ``elements``, whatever it had before.

    The administrator's chain keeps its rules.
    """
    text = [skeleton(table), empty(table)]
    chains = {**_CHAINS, "router": _ROUTER_GUARD if guard_router else "", "mesh": mesh_rules.body(mesh)}
    if policy.mark:
        marked = f"\n\t\tiifname != @internal oifname != @internal {policy.mark} accept"
        chains |= {name: marked + chains[name] for name in ("inbound", "between")}
    if policy.direct:
        chains["forward"] = chains["forward"].replace("ct status dnat oifname", "oifname")
    body = "".join(f"\tchain {chain} {{{rules}\t}}\n" for chain, rules in chains.items() if rules)
    text.append(f"table inet {table} {{\n{body}}}\n")
    text.append(change(table, add=elements))
    return "".join(text)


def empty(table: str) -> str:
    """A transaction that removes all rules and elements of a table, except the administrator's rules."""
    text = [f"flush chain inet {table} {chain}\n" for chain in _CHAINS]
    text += [f"flush set inet {table} {name}\n" for name in SET_NAMES]
    text += [f"flush map inet {table} {name}\n" for name in MAP_NAMES]
    return "".join(text)


def change(table: str, *, add: Iterable[Element] = (), delete: Iterable[Element] = ()) -> str:
    """A transaction that adds and removes elements."""
    text = []
    for verb, elements in (("delete", delete), ("add", add)):
        grouped: dict[str, list[str]] = {}
        for name, element in dict.fromkeys(elements):
            # A map's element is deleted by its key.
            key = element.partition(" : ")[0] if verb == "delete" else element
            grouped.setdefault(name, []).append(key)
        for name, values in grouped.items():
            text.append(f"{verb} element inet {table} {name} {{ {', '.join(values)} }}\n")
    return "".join(text)


#: Sets whose elements have a subnet and no bridge.
OF_SUBNETS = ("masquerade", "source")


def bridge_elements(rules: BridgeRules) -> list[Element]:
    bridge = f'"{rules.bridge}"'
    found: list[Element] = [("bridges", bridge)]
    if rules.internal:
        found.append(("internal", bridge))
    if rules.ingress:
        found.append(("ingress", bridge))
    if rules.node:
        found.append(("node4", f"{bridge} : {rules.node}"))
    found.append(("icc" if rules.icc else "closed", f"{bridge} . {bridge}"))
    found += [("trusted", f'"{interface}" . {bridge}') for interface in rules.trusted]
    for mode, n in ((rules.mode4, "4"), (rules.mode6, "6")):
        if mode in ("nat-unprotected", "routed"):
            found.append((f"{'direct' if mode == 'routed' else 'unprotected'}{n}", bridge))
    for subnet in rules.subnets:
        n, mode, masquerade, source = (
            ("4", rules.mode4, rules.masquerade4, rules.source4)
            if subnet.version == 4
            else ("6", rules.mode6, rules.masquerade6, rules.source6)
        )
        found.append((f"own{n}", f"{bridge} . {subnet}"))
        if rules.internal or not masquerade or mode in ("routed", "isolated"):
            continue
        found.append((f"source{n}", f"{subnet} : {source}") if source else (f"masquerade{n}", str(subnet)))
    return found


def port_elements(publications: Sequence[Publication]) -> list[Element]:
    """The elements of one endpoint's published ports. Overlapping container ports become one interval."""
    found: list[Element] = []
    opened: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    for item in publications:
        n = str(ip_address(item.target).version)
        ports = (item.port, item.port + item.count - 1)
        # A client that bypasses the host's address by a route of its own is accepted only on routed networks.
        kind = f"open{n}" if item.translate else f"routed{n}"
        opened.setdefault((kind, item.bridge, item.target, item.protocol), []).append(ports)
        if item.translate:
            found += _translations(item, n)
    for (kind, bridge, target, protocol), spans in opened.items():
        for first, last in _merged(spans):
            found.append((kind, f'"{bridge}" . {target} . {protocol} . {_span(first, last)}'))
    return found


def _translations(item: Publication, n: str) -> list[Element]:
    everywhere = item.host in ("0.0.0.0", "::")
    if item.count > 1 and item.host_port == item.port:
        host = ("0.0.0.0/0" if n == "4" else "::/0") if everywhere else item.host
        span = _span(item.host_port, item.host_port + item.count - 1)
        return [(f"ranges{n}", f"{host} . {item.protocol} . {span} : {item.target}")]
    found = []
    for step in range(item.count):
        value = f"{item.target} . {item.port + step}"
        key = f"{item.protocol} . {item.host_port + step}"
        name = f"ports{n}_any" if everywhere else f"ports{n}"
        found.append((name, f"{key} : {value}" if everywhere else f"{item.host} . {key} : {value}"))
    return found


def link_elements(links: Iterable[LinkRule]) -> list[Element]:
    return [
        (f"links{ip_address(link.server).version}", f"{link.client} . {link.server} . {link.protocol} . {link.port}")
        for link in links
    ]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
