"""What the handlers of swarm mode share: the manager, and query parameters, parsed as Go's strconv does."""

from starlette.requests import Request

from engine.common import jsontext
from engine.common.errors import WharfError, invalid
from server.http import params
from server.swarm.facade import SwarmFacade
from server.swarm.manager import Manager

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def manager_of(request: Request) -> Manager:
    """:raises WharfError: UNAVAILABLE: this node is no manager, or the swarm is locked."""
    swarm: SwarmFacade = request.state.services.swarm
    return swarm.manager()


def version_of(request: Request, noun: str, *, reason: bool = True) -> int:
    """The parameter ``version``: that of the object as the client read it. ``reason``: the error tells what is wrong.

    :raises WharfError: INVALID_ARGUMENT: no unsigned 64-bit number.
    """
    text = params.text(request, "version")
    if not (text.isascii() and text.isdigit()):
        raise _bad_version(noun, text, "invalid syntax" if reason else "")
    if len(text.lstrip("0")) > 20 or int(text) >= 2**64:
        raise _bad_version(noun, text, "value out of range" if reason else "")
    return int(text)


def _bad_version(noun: str, text: str, reason: str) -> WharfError:
    if not reason:
        return invalid(f"invalid {noun} version")
    quoted = jsontext.dumps(text).decode()
    return invalid(f"invalid {noun} version '{text}': strconv.ParseUint: parsing {quoted}: {reason}")


def boolean(request: Request, name: str) -> bool:
    """A boolean of Go's ``ParseBool``; missing or empty: false.

    :raises WharfError: INVALID_ARGUMENT.
    """
    text = params.text(request, name)
    if text and text not in _TRUE | _FALSE:
        raise invalid(f"invalid value for {name}: {text}")
    return text in _TRUE
