"""The ports of a swarm's routing mesh: a chain of the firewall's table, which is replaced at each change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

#: (set or map, its element as nft text). A map's element is "key : value".
Element = tuple[str, str]


@dataclass(frozen=True, slots=True)
class MeshRule:
    """The host's port ``published`` leads to ``target`` of one of the ``backends`` on the ingress network's ``bridge``,
    in turn. Without backends, connections are refused."""

    bridge: str
    protocol: str
    published: int
    target: int
    backends: tuple[str, ...]


def elements(mesh: Iterable[MeshRule]) -> list[Element]:
    """The elements of the table that open the backends."""
    found = {
        (f"open{ip_address(backend).version}", f'"{rule.bridge}" . {backend} . {rule.protocol} . {rule.target}')
        for rule in mesh
        for backend in rule.backends
    }
    return sorted(found)


def replace(table: str, mesh: Iterable[MeshRule]) -> str:
    """A transaction that replaces the chain's rules."""
    return f"flush chain inet {table} mesh\ntable inet {table} {{\n\tchain mesh {{{body(mesh)}\t}}\n}}\n"


def body(mesh: Iterable[MeshRule]) -> str:
    lines = ["\n"]
    for rule in mesh:
        port = f"meta l4proto {rule.protocol} th dport {rule.published}"
        if not rule.backends:
            lines.append(f"\t\t{port} reject{' with tcp reset' if rule.protocol == 'tcp' else ''}\n")
            continue
        targets = [f"{backend} . {rule.target}" for backend in rule.backends]
        lines.append(f"\t\tmeta nfproto ipv4 {port} dnat ip to {in_turn(targets)}\n")
    return "".join(lines)


def in_turn(targets: Sequence[str]) -> str:
    """The nft expression of one of ``targets``, another one at each evaluation."""
    listed = ", ".join(f"{number} : {target}" for number, target in enumerate(targets))
    return f"numgen inc mod {len(targets)} map {{ {listed} }}"
