"""pyroute2's message classes, without the rest of pyroute2.

``import pyroute2`` loads everything: 14 MiB and 120 ms, for sockets and databases that are not used here. The message
classes cost 2 MiB and 10 ms, so they are imported without running the package's ``__init__``.
"""

from importlib import import_module
from typing import Any

from engine.common.system.packages import skip_init

skip_init("pyroute2")

_rtnl = "pyroute2.netlink.rtnl"
ifinfmsg: Any = import_module(f"{_rtnl}.ifinfmsg").ifinfmsg
ifaddrmsg: Any = import_module(f"{_rtnl}.ifaddrmsg").ifaddrmsg
rtmsg: Any = import_module(f"{_rtnl}.rtmsg").rtmsg
