"""What plugins answer is checked: a wrong type or address is an error that names the method."""

import subprocess
import sys
from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from server.networks.model import Endpoint, RemoteEndpoint, SandboxRecord
from server.networks.remote.messages import Answer, parse_join

METHOD = "NetworkDriver.Join"


def join(**fields: Any) -> Any:
    return parse_join(Answer(METHOD, fields))


def test_an_empty_answer_is_no_interface() -> None:
    for fields in ({}, {"InterfaceName": None, "StaticRoutes": None, "Gateway": ""}):
        joined = join(**fields)
        assert (joined.source, joined.gateway4, joined.gateway6, joined.routes) == ("", "", "", ())
        assert not joined.without_gateway


def test_fields_match_in_any_case_as_in_go() -> None:
    joined = join(interfacename={"srcname": "veth1", "DSTPREFIX": "eth"}, gateway="10.0.0.1")
    assert (joined.source, joined.prefix, joined.gateway4) == ("veth1", "eth", "10.0.0.1")


def test_routes_have_a_next_hop_or_are_connected() -> None:
    joined = join(
        StaticRoutes=[
            {"Destination": "10.1.2.3/16", "RouteType": 0, "NextHop": "10.0.0.1"},
            {"Destination": "fd00::/64", "RouteType": 1, "NextHop": ""},
            {"Destination": "0.0.0.0/0", "NextHop": "10.0.0.1"},
        ]
    )
    assert joined.routes == (("10.1.0.0/16", "10.0.0.1"), ("fd00::/64", ""), ("0.0.0.0/0", "10.0.0.1"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"InterfaceName": "veth1"}, "InterfaceName is not an object"),
        ({"InterfaceName": {"SrcName": 1}}, "SrcName is not a string"),
        ({"InterfaceName": {"SrcName": "a/b", "DstPrefix": "eth"}}, "invalid interface name 'a/b'"),
        ({"InterfaceName": {"SrcName": "x" * 16, "DstPrefix": "eth"}}, "invalid interface name"),
        ({"InterfaceName": {"SrcName": "veth1", "DstPrefix": "e t"}}, "invalid interface name 'e t'"),
        ({"Gateway": "nowhere"}, 'unable to parse Gateway "nowhere"'),
        ({"Gateway": "fd00::1"}, 'unable to parse Gateway "fd00::1"'),
        ({"GatewayIPv6": "10.0.0.1"}, 'unable to parse GatewayIPv6 "10.0.0.1"'),
        ({"StaticRoutes": {}}, "StaticRoutes is not an array"),
        ({"StaticRoutes": [1]}, "StaticRoutes is not an array of objects"),
        ({"StaticRoutes": [{"RouteType": 1}]}, "a static route has no destination"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0"}]}, "invalid CIDR address: 10.0.0.0"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "NextHop": "x"}]}, "failed to parse nexthop IP x"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8"}]}, "has no next hop"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 1}] * 1001}, "NETWORK_ROUTES"),
        ({"DisableGatewayService": "yes"}, "DisableGatewayService is not a boolean"),
    ],
)
def test_a_malformed_answer_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(WharfError, match=words.replace("'", ".").replace("(", ".")) as error:
        join(**fields)
    assert error.value.kind is Kind.INTERNAL


def test_records_survive_the_database() -> None:
    remote = RemoteEndpoint("p4", "p6", True, "veth1", "eth", (("10.0.0.0/8", "10.1.1.1"),), True, (True, False))
    endpoint = Endpoint("e1", "n1", "c1", "box", remote=remote)
    gateway = Endpoint("e2", "n2", "c1", "gateway_1", implicit=True)
    record = SandboxRecord("c1", "s1", "own", "/run/x", endpoints=[endpoint, gateway], pending=[endpoint])
    again = SandboxRecord.from_doc(record.to_doc())
    assert again.endpoints[0].remote == again.pending[0].remote == remote
    assert (again.endpoints[1].implicit, again.endpoints[1].remote) == (True, None)


def test_the_default_route_is_the_gateway_or_a_static_route() -> None:
    endpoint = Endpoint("e1", "n1", "c1", "box")
    assert endpoint.default_hop(4) is None
    endpoint.remote = RemoteEndpoint(routes=(("0.0.0.0/0", "10.0.0.9"), ("::/0", "")))
    assert (endpoint.default_hop(4), endpoint.default_hop(6)) == ("10.0.0.9", "")
    endpoint.gateway4 = "10.0.0.1"
    assert endpoint.default_hop(4) == "10.0.0.1"


def test_an_engine_without_plugin_networks_loads_nothing_of_this_room() -> None:
    script = "import sys, server.networks.service; print(*(name for name in sys.modules if 'server.networks' in name))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.split()
    assert "server.networks.remotes" in loaded
    assert not [
        name for name in loaded if name.startswith(("server.networks.remote.", "server.networks.bridges.moved"))
    ]
