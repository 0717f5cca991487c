"""The lines of the daemon's log."""

import logging

from server.log import Lines


def test_a_message_is_one_line() -> None:
    lines = Lines("%(levelname)s %(message)s")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "no %s", ("a\n2026 INFO b\0\x1b[31m\x9b\tü",), None)
    assert lines.format(record) == "ERROR no a\\x0a2026 INFO b\\x00\\x1b[31m\\x9b\\x09ü"


def test_a_stack_keeps_its_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "bad", (), (ValueError, error, error.__traceback__))
    assert "\nTraceback (most recent call last):\n" in Lines("%(message)s").format(record)
