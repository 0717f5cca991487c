"""pyroute2's message classes, without the rest of pyroute2.

``import pyroute2`` loads all of it: 14 MiB and 120 ms, for sockets and databases that are not used here. The
message classes alone cost 2 MiB and 10 ms, so the package is entered without running its ``__init__``.
"""

from importlib import import_module
from typing import Any

from engine.common.system.packages import skip_init

skip_init("pyroute2")

_rtnl = "pyroute2.netlink.rtnl"
ifinfmsg: Any = import_module(f"{_rtnl}.ifinfmsg").ifinfmsg
ifaddrmsg: Any = import_module(f"{_rtnl}.ifaddrmsg").ifaddrmsg
rtmsg: Any = import_module(f"{_rtnl}.rtmsg").rtmsg
