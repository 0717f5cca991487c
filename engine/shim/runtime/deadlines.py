"""How long a call of the OCI runtime may take: at its deadline the shim kills the call.

The supervisor defines the same deadlines for its own requests (``engine.common.timeouts``). The same variable of the
environment overrides them: ``WHARF_TIMEOUTS="runtime.create=60,*=8"``.
"""

import os

#: Seconds, without overrides.
DEFAULTS = {
    "runtime.create": 60.0,
    "runtime.start": 30.0,
    "runtime.exec": 60.0,
    "runtime.kill": 20.0,
    "runtime.delete": 30.0,
    "runtime.update": 20.0,
    "runtime.pause": 30.0,
}


def _overridden(text: str) -> dict[str, float]:
    overrides = dict(item.strip().split("=", 1) for item in text.split(",") if "=" in item)
    factor = float(overrides.get("*", 1))
    return {name: float(overrides.get(name, seconds * factor)) for name, seconds in DEFAULTS.items()}


#: Seconds that apply. A checkpoint has no deadline: CRIU that is killed in the middle harms the container.
RUNTIME = _overridden(os.environ.get("WHARF_TIMEOUTS", ""))
