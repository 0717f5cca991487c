"""Signals in Docker's spelling: a number, ``TERM`` or ``SIGTERM`` in any case, ``RTMIN+3``.

The numbers are Linux's (include/uapi/asm-generic/signal.h), as on every supported architecture. Python's ``signal``
module has only one name of each pair of synonyms, and no ``RTMIN+3``.
"""

from engine.common.errors import invalid

_NAMES = (  # in the order of their numbers, from 1
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
    "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_NUMBERS = {name: number for number, name in enumerate(_NAMES.split(), 1)}
_NUMBERS |= {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
_RTMIN, _RTMAX = 34, 64
_NUMBERS |= {f"RTMIN+{n}": _RTMIN + n for n in range(1, 16)} | {"RTMIN": _RTMIN}
_NUMBERS |= {f"RTMAX-{n}": _RTMAX - n for n in range(1, 15)} | {"RTMAX": _RTMAX}

SIGKILL = 9
SIGTERM = 15
#: Those that clients send to end a container: SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM.
TERMINATING = frozenset((1, 2, 3, SIGKILL, SIGTERM))


def parse(text: str) -> int:
    """The number of a signal.

    :raises WharfError: INVALID_ARGUMENT ``invalid signal: x``.
    """
    if text.lstrip("+-").isdigit() and text.isascii():
        number = int(text)
        if number == 0:
            raise invalid(f"invalid signal: {text}")
        return number
    number = _NUMBERS.get(text.upper().removeprefix("SIG"), 0)
    if number == 0:
        raise invalid(f"invalid signal: {text}")
    return number


def known(number: int) -> bool:
    """Whether ``docker kill`` accepts the number."""
    return number in _VALUES


_VALUES = frozenset(_NUMBERS.values())
