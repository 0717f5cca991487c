"""The log drivers: each module of this package declares drivers in its ``DRIVERS``; they are found by that name.

These modules import no models: the daemon's configuration is checked with them before the rest is loaded.
"""

import importlib
import pkgutil
from collections.abc import Mapping

from server.logdrivers.driver import LogDriver


def _declared() -> dict[str, LogDriver]:
    found: dict[str, LogDriver] = {}
    for module in pkgutil.iter_modules(__path__):
        drivers: tuple[LogDriver, ...] = importlib.import_module(f"{__name__}.{module.name}").DRIVERS
        found.update({driver.name: driver for driver in drivers})
    return found


#: The drivers by the names of ``--log-driver``. Other names are those of plugins.
DRIVERS: Mapping[str, LogDriver] = _declared()
