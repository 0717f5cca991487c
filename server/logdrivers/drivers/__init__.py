"""The log drivers: each module of this package declares them in ``DRIVERS``, and nothing else needs to know it.

The daemon's configuration is checked with these modules before anything else is loaded: they import no models.
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


#: By the names that ``--log-driver`` takes. A driver that isn't here is a plugin's, or refused by name.
DRIVERS: Mapping[str, LogDriver] = _declared()
