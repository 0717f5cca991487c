"""The parts of pyroute2 that ``codec`` and ``rtnetlink`` use, loaded without the package's ``__init__``."""

import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from server.networks.netlink.codec import ifaddrmsg, ifinfmsg, rtmsg

#: The fields of the message's head and the attributes that are written or read.
USED = {
    "ifinfmsg": (
        ifinfmsg,
        "index flags change",
        "IFLA_IFNAME IFLA_IFALIAS IFLA_MTU IFLA_ADDRESS IFLA_MASTER IFLA_LINKINFO IFLA_LINK IFLA_NET_NS_FD",
    ),
    "ifaddrmsg": (ifaddrmsg, "family prefixlen index flags", "IFA_LOCAL IFA_ADDRESS IFA_BROADCAST"),
    "rtmsg": (rtmsg, "family dst_len table proto type scope", "RTA_DST RTA_GATEWAY RTA_OIF RTA_PREFSRC RTA_TABLE"),
}


@pytest.mark.parametrize("name", USED)
def test_what_is_used_of_pyroute2_is_there(name: str) -> None:
    kind, fields, attributes = USED[name]
    message: Any = kind()
    known = {entry[0] for entry in kind.fields}
    gone = [f"the field {name}.{field}" for field in fields.split() if field not in known]
    mapped = {entry[0] for entry in kind.nla_map} | {entry[1] for entry in kind.nla_map if len(entry) > 2}
    gone += [f"the attribute {each} of {name}" for each in attributes.split() if each not in mapped]
    gone += [
        f"{name}.{each}" for each in ("encode", "decode", "reset", "get_attr", "data") if not hasattr(message, each)
    ]
    gone += [
        f'{name}["header"]["{each}"]'
        for each in ("type", "flags", "sequence_number")
        if each not in {entry[0] for entry in kind.header}
    ]
    assert not gone, (
        f"pyroute2 {version('pyroute2')} changes {', '.join(gone)}: adapt server/networks/netlink before the bound in "
        "pyproject.toml is raised"
    )


def test_a_message_survives_its_bytes() -> None:
    message: Any = ifinfmsg()
    kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": []})]})
    message["index"], message["attrs"] = 7, [("IFLA_IFNAME", "wharf0"), ("IFLA_MTU", 1400), kind]
    message["header"]["type"] = 16
    message.reset()
    message.encode()
    again: Any = ifinfmsg(bytes(message.data))
    again.decode()
    assert (again["index"], again.get_attr("IFLA_IFNAME"), again.get_attr("IFLA_MTU")) == (7, "wharf0", 1400)
    assert again.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "bridge"


def test_the_package_is_entered_without_its_init() -> None:
    code = "import sys, server.networks.netlink.codec; sys.exit('pyroute2.iproute' in sys.modules)"
    status = subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode
    assert status == 0, f"pyroute2 {version('pyroute2')} loads the whole package with its messages: 14 MiB, 120 ms"
