"""Stretches deadlines on a slow machine (an emulated one): ``WHARF_TEST_PATIENCE=8``.

Deadlines of the tests only end hangs, so all may be multiplied: those of programs and sockets here, those that the
harness computes itself in its own code. Engines that the harness starts get the same factor.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

FACTOR = float(os.environ.get("WHARF_TEST_PATIENCE", "1"))


def stretch() -> None:
    """Multiply every deadline of programs, sockets and events by the factor; called once."""
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


def stretch_limit(config: pytest.Config) -> None:
    """Multiply pytest-timeout's limit for a test and its fixtures; called before that plugin reads it."""
    limit = config.getini("timeout") if config.option.timeout is None else config.option.timeout
    if FACTOR != 1 and limit:
        config.option.timeout = float(limit) * FACTOR


def _stretched(method: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Return the method with its deadline, at this position or by keyword, multiplied."""

    def call(*args: Any, **named: Any) -> Any:
        if len(args) > position and args[position] is not None:
            args = (*args[:position], args[position] * FACTOR, *args[position + 1 :])
        elif named.get("timeout") is not None:
            named["timeout"] *= FACTOR
        return method(*args, **named)

    return call
