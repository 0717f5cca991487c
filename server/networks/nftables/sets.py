"""The sets and maps of the firewall's table."""

#: For each family of addresses.
FAMILY_SETS = """\
	set own{n} {{
		type ifname . {address}
		flags interval
		comment "subnets, each with its bridge"
	}}
	set masquerade{n} {{
		type {address}
		flags interval
		comment "subnets that leave with the host's address"
	}}
	map source{n} {{
		type {address} : {address}
		flags interval
		comment "subnets that leave with a chosen address"
	}}
	set unprotected{n} {{
		type ifname
		comment "bridges whose containers are open to everybody"
	}}
	set direct{n} {{
		type ifname
		comment "bridges whose containers are reached by a route"
	}}
	set open{n} {{
		type ifname . {address} . inet_proto . inet_service
		flags interval
		comment "published ports of containers"
	}}
	set routed{n} {{
		type ifname . {address} . inet_proto . inet_service
		flags interval
		comment "ports of containers that are reached by a route"
	}}
	set links{n} {{
		type {address} . {address} . inet_proto . inet_service
		comment "linked containers, for bridges without icc"
	}}
	map ports{n} {{
		type {address} . inet_proto . inet_service : {address} . inet_service
		comment "published at one address of the host"
	}}
	map ports{n}_any {{
		type inet_proto . inet_service : {address} . inet_service
		comment "published at all addresses of the host"
	}}
	map ranges{n} {{
		type {address} . inet_proto . inet_service : {address}
		flags interval
		comment "ranges that keep their numbers"
	}}
"""

SETS = """\
	set bridges {
		type ifname
		comment "all bridges of this engine"
	}
	set internal {
		type ifname
		comment "bridges without a way out"
	}
	set icc {
		type ifname . ifname
		comment "bridges whose containers may talk to each other"
	}
	set closed {
		type ifname . ifname
		comment "bridges whose containers may talk through links only"
	}
	set ingress {
		type ifname
		comment "bridges whose containers answer by the host only"
	}
	map node4 {
		type ifname : ipv4_addr
		comment "own addresses on networks that other nodes have too"
	}
	set trusted {
		type ifname . ifname
		comment "interfaces that reach published ports of a bridge's containers by a route"
	}
"""

SET_NAMES = (
    "bridges", "internal", "icc", "closed", "ingress", "trusted",
    *(f"{name}{n}" for n in "46" for name in ("own", "masquerade", "unprotected", "direct", "open", "routed", "links")),
)  # fmt: skip
MAP_NAMES = (
    "node4",
    *(name for n in "46" for name in (f"source{n}", f"ports{n}", f"ports{n}_any", f"ranges{n}")),
)
