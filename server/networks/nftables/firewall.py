"""Keeps the kernel's ruleset equal to the engine's elements, with one transaction per change.

This module has these elements, by owner. If another program flushed the table, the next change detects it (the
kernel counts the changes of a ruleset) and rewrites the table. All methods block for about a millisecond: call them in
a thread; they are serialized.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from threading import RLock

from server.networks.netlink.netns import sysctl
from server.networks.nftables import mesh as mesh_rules
from server.networks.nftables import rules
from server.networks.nftables.firewalld import Firewalld
from server.networks.nftables.libnftables import Nftables, NftError, generation
from server.networks.nftables.mesh import Element, MeshRule
from server.networks.nftables.rules import BridgeRules

log = logging.getLogger(__name__)

Chain = tuple[str, str, str]  # family, table, name
_FIREWALLD = ("inet", "firewalld", "filter_FORWARD")
#: Chains of other firewalls that drop unknown traffic: accepting it in our own table has no effect there.
_FOREIGN = (("ip", "filter", "FORWARD"), ("ip6", "filter", "FORWARD"), _FIREWALLD)
_HANDLE = re.compile(r'^\s*(?P<rule>.*?)\s*comment "(?P<tag>[^"]*)".*# handle (?P<handle>\d+)$')
#: The number of its own transactions that an engine recognizes when they are announced.
_REMEMBERED = 4096
#: The owner of the elements of the routing mesh.
_MESH = "mesh"
_INTERFACE = re.compile(r'(?P<side>[io])ifname "(?P<name>[^"]+)"')


class Firewall:
    """The table of one engine.

    :param enabled: False for ``--iptables=false``: writes nothing; the forwarder serves the ports.
    :param marker: a file that records that this engine enabled forwarding; it survives restarts. "": the host may
        route for others.
    """

    def __init__(
        self, bridge: str, *, enabled: bool = True, marker: str = "", policy: rules.Policy | None = None
    ) -> None:
        self.table = rules.table_name(bridge)
        self._policy = policy or rules.Policy()
        self.enabled = enabled
        self._marker = marker
        self._tag = self.table
        self._lock = RLock()
        self._elements: dict[str, list[Element]] = {}
        self._bridges: dict[str, BridgeRules] = {}
        self._mesh: Sequence[MeshRule] = ()
        self._opened: list[Chain] = []
        self._firewalld = Firewalld()
        self._zoned = False  # whether firewalld runs and has our bridges
        self._nft: Nftables | None = None
        self._generation = -1
        self._whole = -1  # the generation of the last complete rewrite of the table
        self._own: dict[int, None] = {}  # the generations of our transactions, the oldest first
        self._expected = ""

    @property
    def guards_router(self) -> bool:
        """Whether this engine enabled forwarding and so keeps the host from routing for others."""
        return bool(self._marker) and os.path.exists(self._marker)

    def enable_forwarding(self, *, v6: bool = False) -> None:
        """Enables forwarding between the bridges and the uplinks, as dockerd does at start."""
        name = "net.ipv6.conf.all.forwarding" if v6 else "net.ipv4.ip_forward"
        with self._lock:
            if sysctl(name) == "0":
                if self.enabled and self._marker:
                    # The marker first: after a crash in between, the host must not remain a router.
                    with open(self._marker, "a", encoding="ascii"):
                        pass
                    if self._generation >= 0:
                        self._rebuild()
                sysctl(name, "1")
            if v6 and sysctl("net.ipv6.conf.default.forwarding") == "0":
                sysctl("net.ipv6.conf.default.forwarding", "1")

    def start(
        self,
        elements: Mapping[str, Sequence[Element]],
        bridges: Sequence[BridgeRules],
        mesh: Sequence[MeshRule] = (),
    ) -> None:
        """Sets the ruleset to exactly this, whatever an earlier process left."""
        with self._lock:
            self._elements = {owner: list(own) for owner, own in elements.items()}
            self._mesh = mesh
            self._elements[_MESH] = mesh_rules.elements(mesh)
            self._bridges = {bridge.bridge: bridge for bridge in bridges}
            for bridge in bridges:
                self._elements[_owner(bridge.bridge)] = rules.bridge_elements(bridge)
            if self.enabled:
                self._rebuild()

    def add_bridge(self, bridge: BridgeRules) -> None:
        with self._lock:
            self.check()  # handle other programs' changes first: then it is known which of their chains exist
            known = bridge.bridge in self._bridges
            self._bridges[bridge.bridge] = bridge
            inserts = [self._insert(chain, side, bridge.bridge) for chain in self._opened for side in "io"]
            owner, wanted = _owner(bridge.bridge), rules.bridge_elements(bridge)
            if gone := [element for element in self._elements.get(owner, ()) if element not in wanted]:
                self._elements[owner] = [element for element in self._elements[owner] if element in wanted]
                self._apply(rules.change(self.table, delete=gone))
            self.add(owner, wanted, "" if known else "".join(inserts))
            if self._zoned and not known:
                self._firewalld.assign(self._bridges)

    def remove_bridge(self, name: str) -> None:
        with self._lock:
            self._bridges.pop(name, None)
            self.remove(_owner(name))
            if self.enabled:
                self._foreign()

    def add(self, owner: str, elements: Sequence[Element], more: str = "") -> None:
        """Adds elements for an owner (one endpoint, one bridge). Undone by :meth:`remove`.

        ``more``: nft text for the same transaction; only committed if an element is new.

        :raises NftError: the kernel refused; nothing has changed then.
        """
        with self._lock:
            had = self._elements.get(owner, [])
            fresh = [element for element in elements if element not in had]
            if not fresh:
                return
            self._elements[owner] = had + fresh
            try:
                self._apply(rules.change(self.table, add=fresh) + more)
            except BaseException:
                self._elements[owner] = had
                if not had:
                    del self._elements[owner]
                raise

    def remove(self, owner: str) -> None:
        """Removes all elements of an owner; does nothing if it has none. Keeps those that another owner has too: a
        subnet may belong to a new network while the device of its old one is still being removed."""
        with self._lock:
            gone = self._elements.pop(owner, [])
            if shared := [element for element in gone if element[0].startswith(rules.OF_SUBNETS)]:
                remaining = {element for owned in self._elements.values() for element in owned}
                gone = [element for element in gone if element not in shared or element not in remaining]
            if gone:
                self._apply(rules.change(self.table, delete=gone))

    def set_mesh(self, mesh: Sequence[MeshRule]) -> None:
        """Replaces the ports of the routing mesh, in one transaction.

        :raises NftError: the kernel refused; nothing has changed then.
        """
        with self._lock:
            former, opened = self._mesh, self._elements.get(_MESH, [])
            if mesh == former:
                return
            wanted = mesh_rules.elements(mesh)
            self._mesh, self._elements[_MESH] = mesh, wanted
            fresh, gone = set(wanted) - set(opened), set(opened) - set(wanted)
            try:
                self._apply(rules.change(self.table, add=fresh, delete=gone) + mesh_rules.replace(self.table, mesh))
            except BaseException:
                self._mesh, self._elements[_MESH] = former, opened
                raise
            if self.enabled:
                self._expected = self._shape()

    @property
    def changed(self) -> bool:
        """Whether another program has changed this host's rules since the last check."""
        return generation() != self._generation

    def intact(self) -> bool:
        """Whether our chains and sets are unchanged."""
        with self._lock:
            return self._intact()

    def check(self, deletions: Collection[int] = ()) -> bool:
        """Restores the table if another program has changed it; returns True if it had to.

        :param deletions: the generations of transactions that deleted elements of the table: elements are only checked
            because of these.
        :raises NftError: the kernel refused.
        """
        with self._lock:
            if not self.enabled or self._generation < 0:
                return False
            # A rewrite of the table has restored what was deleted before it.
            if all(number in self._own or not _after(number, self._whole) for number in deletions):
                return self._notice()
            self._restore()
            return True

    def stop(self) -> None:
        """Removes all rules of this engine, also those in others' chains. Keeps an administrator's rules for the next
        start."""
        with self._lock:
            if not self.enabled:
                return
            self._bridges = {}
            self._elements = {}
            self._mesh = ()
            self._foreign()
            with contextlib.suppress(NftError):
                kept = len(self._run(f"list chain inet {self.table} {rules.USER_CHAIN}\n").splitlines()) > 4
                self._run(rules.empty(self.table) if kept else f"delete table inet {self.table}\n")
            self._generation = -1
            if self._nft:
                self._nft.close()
                self._nft = None

    def dump(self) -> str:
        """The table as nft prints it."""
        with self._lock:
            return self._run(f"list table inet {self.table}\n")

    def _run(self, text: str, *, handles: bool = False, terse: bool = False) -> str:
        if self._nft is None:
            self._nft = Nftables()
        return self._nft.run(text, handles=handles, terse=terse)

    def _apply(self, text: str) -> None:
        if not self.enabled:
            return
        if self._generation < 0:
            self._rebuild()
            return
        if self._notice():
            return  # the change is included in the elements, and so in the rewrite
        try:
            self._change(text)
        except NftError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            self._rebuild()

    def _change(self, text: str) -> None:
        """Commits one transaction. The kernel counts it as one: a concurrent change of another program is still
        detected."""
        before = self._generation
        self._run(text)
        self._generation = generation()
        if before >= 0 and self._generation != before:
            after, self._generation = self._generation, (before + 1) & 0xFFFFFFFF
            if after == self._generation:
                self._own[after] = None
                if len(self._own) > _REMEMBERED:
                    del self._own[next(iter(self._own))]

    def _notice(self) -> bool:
        """Handles other programs' changes since our last transaction. Returns True if the table was rewritten."""
        now = generation()
        if now == self._generation:
            return False
        if not self._intact():
            self._restore()
            return True
        self._generation = now
        self._foreign()
        return False

    def _intact(self) -> bool:
        """Whether our chains and sets are unchanged (doesn't check elements)."""
        try:
            return self._shape() == self._expected
        except NftError:
            return False

    def _shape(self) -> str:
        listing = self._run(f"list table inet {self.table}\n", terse=True)
        # Ignore the administrator's chain.
        before, _, rest = listing.partition(f"\tchain {rules.USER_CHAIN} {{")
        return before + rest.partition("\n\t}\n")[2]

    def _restore(self) -> None:
        self._rebuild()
        log.warning("table inet %s was changed by another program: restored", self.table)

    def _rebuild(self) -> None:
        self._generation = generation()
        elements = [element for owned in self._elements.values() for element in owned]
        guard, policy = self.guards_router, self._policy
        text = rules.whole(self.table, elements, guard_router=guard, policy=policy, mesh=self._mesh)
        try:
            self._change(text)
        except NftError as error:
            # Sets of another layout (an older version's): keep only the administrator's chain.
            log.info("rewriting table %s: %s", self.table, error)
            self._change(self._from_scratch(text))
        self._whole = self._generation
        self._expected = self._shape()
        self._foreign()

    def _from_scratch(self, text: str) -> str:
        saved = ""
        with contextlib.suppress(NftError):
            saved = self._run(f"list chain inet {self.table} {rules.USER_CHAIN}\n")
        return f"add table inet {self.table}\ndelete table inet {self.table}\n{text}{saved}"

    def _foreign(self) -> None:
        """Tagged accept rules for our bridges in other firewalls' forward chains, and firewalld's zone."""
        expected = {(side, bridge) for bridge in self._bridges for side in "io"}
        self._opened, self._zoned = [], False
        for family, table, chain in _FOREIGN:
            try:
                listing = self._run(f"list chain {family} {table} {chain}\n", handles=True)
            except NftError:
                continue
            if (family, table, chain) == _FIREWALLD and self._firewalld.assign(self._bridges):
                self._zoned = True
                continue
            self._opened.append((family, table, chain))
            text = []
            present = set()
            for line in listing.splitlines():
                match = _HANDLE.match(line)
                if not match or match["tag"] != self._tag:
                    continue
                interface = _INTERFACE.search(match["rule"])
                key = (interface["side"], interface["name"]) if interface else ("", "")
                if key in expected and key not in present:
                    present.add(key)
                else:
                    text.append(f"delete rule {family} {table} {chain} handle {match['handle']}\n")
            for side, bridge in sorted(expected - present):
                text.append(self._insert((family, table, chain), side, bridge))
            if text:
                try:
                    self._change("".join(text))
                except NftError as error:
                    log.warning("cannot open chain %s %s %s for our bridges: %s", family, table, chain, error)

    def _insert(self, chain: Chain, side: str, bridge: str) -> str:
        rule = f'{side}ifname "{bridge}" counter accept comment "{self._tag}"'
        return f"insert rule {' '.join(chain)} {rule}\n"


def _after(generation: int, other: int) -> bool:
    """Whether a generation is later than another one; they wrap at 32 bits."""
    return 0 < (generation - other) & 0xFFFFFFFF < 1 << 31


def _owner(bridge: str) -> str:
    return f"bridge {bridge}"
