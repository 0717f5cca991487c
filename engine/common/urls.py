"""URLs from clients and registries, refused as Go's ``net/url`` refuses them."""

import json
import re
from urllib.parse import SplitResult, urlsplit

from engine.common.errors import WharfError, invalid

_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)
_HOST_ESCAPE = re.compile(r"%[0-7].", re.DOTALL)
_PORT = re.compile(r":[0-9]*")
_NOT_IN_HOST = re.compile(r"[ \"<>^`{}|\\]")


def parse_url(text: str) -> SplitResult:
    """The parts of an absolute URL; reading ``hostname`` and ``port`` raises nothing.

    :raises WharfError: INVALID_ARGUMENT: ``parse "http://[a": missing ']' in host``.
    """
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise _refused(text, "net/url: invalid control character in URL")
    place = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    host = place.rpartition("@")[2]
    if found := _ESCAPE.search(text.partition("?")[0]):
        raise _refused(text, f"invalid URL escape {json.dumps(found[0])}")
    if found := _HOST_ESCAPE.search(host.partition("%25")[0] if host.startswith("[") else host):
        raise _refused(text, f"invalid URL escape {json.dumps(found[0])}")
    if host.startswith("["):
        if "]" not in host:
            raise _refused(text, "missing ']' in host")
        port = host.rpartition("]")[2]
    else:
        port = host[host.index(":") :] if ":" in host else ""
    if port and not _PORT.fullmatch(port):
        raise _refused(text, f"invalid port {json.dumps(port)} after host")
    if found := _NOT_IN_HOST.search(host):
        raise _refused(text, f"invalid character {json.dumps(found[0])} in host name")
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port  # both are computed, and validated, when they are read
    except ValueError as error:
        raise _refused(text, str(error)) from None
    return parts


def _refused(text: str, why: str) -> WharfError:
    shown = json.dumps(text).replace("\\u007f", "\\x7f")
    return invalid(f"parse {shown}: {why}")
