"""The headers of a call of the gRPC API."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """The namespace and lease of a call. ``lease`` is empty without one."""

    namespace: str
    lease: str = ""
