"""How much longer than usual a slow machine (an emulated one) may take: ``WHARF_TEST_PATIENCE=8``.

The deadlines of the tests end hangs, so that they may all be stretched alike: those of programs and of sockets here,
those that the harness counts itself where it counts them. The engines that it starts get the same.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

FACTOR = float(os.environ.get("WHARF_TEST_PATIENCE", "1"))


def stretch() -> None:
    """Makes every deadline given to a program, a socket or an event longer by the factor; called once."""
    if FACTOR == 1:
        return
    os.environ.setdefault("WHARF_TIMEOUTS", f"*={FACTOR}")
    for owner, name, position in (
        (subprocess.Popen, "wait", 1),
        (subprocess.Popen, "communicate", 2),
        (socket.socket, "settimeout", 1),
        (threading.Event, "wait", 1),
    ):
        setattr(owner, name, _stretched(getattr(owner, name), position))


def _stretched(method: Callable[..., Any], position: int) -> Callable[..., Any]:
    """The method with its deadline, at this position or by keyword, made longer."""

    def call(*args: Any, **named: Any) -> Any:
        if len(args) > position and args[position] is not None:
            args = (*args[:position], args[position] * FACTOR, *args[position + 1 :])
        elif named.get("timeout") is not None:
            named["timeout"] *= FACTOR
        return method(*args, **named)

    return call
