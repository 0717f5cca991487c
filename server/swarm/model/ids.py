"""Identifiers of swarm objects: 25 random base-36 digits, as SwarmKit makes them."""

import secrets

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTH = 25
#: 25 base-36 digits can express a little more than 129 bits; SwarmKit uses 128.
_BITS = 128


def base36(number: int, length: int) -> str:
    """``number`` in base 36, padded with zeros to ``length`` digits."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits.rjust(length, "0")


def new_id() -> str:
    return base36(secrets.randbits(_BITS), LENGTH)
