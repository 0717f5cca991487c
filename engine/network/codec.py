"""pyroute2's message classes, without the rest of pyroute2.

``import pyroute2`` loads all of it: 14 MiB and 120 ms, for sockets and databases that are not used here. The
message classes alone cost 2 MiB and 10 ms, so the package is entered without running its ``__init__``.
"""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

if "pyroute2" not in sys.modules:
    _spec = find_spec("pyroute2")
    if _spec is None:
        raise ImportError("pyroute2 is not installed", name="pyroute2")
    sys.modules["pyroute2"] = module_from_spec(_spec)

_rtnl = "pyroute2.netlink.rtnl"
ifinfmsg: Any = import_module(f"{_rtnl}.ifinfmsg").ifinfmsg
ifaddrmsg: Any = import_module(f"{_rtnl}.ifaddrmsg").ifaddrmsg
rtmsg: Any = import_module(f"{_rtnl}.rtmsg").rtmsg
