"""What each call of the gRPC API carries in its headers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """In whose name a call is made. ``lease`` is empty without one."""

    namespace: str
    lease: str = ""
