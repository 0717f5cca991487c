"""The drivers that write a file, and ``none``. The shim writes the files (``engine.shim.logs.files``)."""

from server.logdrivers.driver import META, LogDriver

_FILE = frozenset(("max-file", "max-size", "compress"))

DRIVERS = (
    LogDriver(name="json-file", options=_FILE | META),
    LogDriver(name="local", options=_FILE, unknown="unknown log opt '{key}' for log driver {kind}"),
    LogDriver(name="none", options=frozenset()),
)
