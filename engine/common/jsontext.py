"""Decodes foreign JSON as Go's encoding/json does, and encodes JSON that is always valid UTF-8.

Every document of another program (requests, registries, archives, plugins, configuration files) is decoded here: a str
with a surrogate can't be encoded again, so it would fail wherever it is sent on or stored.
"""

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

import orjson

from engine.common.errors import invalid

# An escape in a JSON text: a valid surrogate pair, a lone surrogate, or any other.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_REPLACEMENT = "\ufffd"
_ERRORS = "wharf-go"


def _one_per_byte(error: UnicodeError) -> tuple[str, int]:
    """Go's decoder replaces each invalid byte; Python's "replace" replaces a sequence of them by one character."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _REPLACEMENT * (error.end - error.start), error.end


codecs.register_error(_ERRORS, _one_per_byte)


def text(data: bytes) -> str:
    """Decodes UTF-8; each invalid byte becomes U+FFFD, as when Go ranges over a string."""
    return data.decode("utf-8", _ERRORS)


def loads(data: bytes | str) -> Any:
    """The value of a JSON text. Invalid UTF-8 and lone surrogates become U+FFFD (encoding/json: ``unquote``).

    :raises ValueError: invalid JSON, or nested deeper than 1,024.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        source = text(data) if isinstance(data, bytes) else _valid(data)
        mended = _ESCAPE.sub(lambda found: _REPLACEMENT if found[1] else found[0], source)
        if isinstance(data, str) and mended == data:
            raise
    return orjson.loads(mended)


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """A document that must be an object. ``what``: the document in the error's sentence.

    :raises WharfError: INVALID_ARGUMENT: it is no JSON, or no object.
    """
    try:
        document = loads(data)
    except ValueError:
        raise invalid(f"{what} is no JSON") from None
    if not isinstance(document, dict):
        raise invalid(f"{what} is no JSON object")
    return document


def has_more(document: Any, most: int) -> bool:
    """Whether arrays and objects of a decoded document have more than ``most`` elements and members together. Counts no
    further than that."""
    count, unseen = 0, [document]
    while unseen:
        value = unseen.pop()
        if isinstance(value, list | dict):
            count += len(value)
            if count > most:
                return True
            unseen += value if isinstance(value, list) else value.values()
    return False


def _valid(source: str) -> str:
    """The text with its surrogates (undecodable bytes of an argument or a file's name) replaced."""
    return source.encode("utf-8", "surrogatepass").decode("utf-8", _ERRORS) if not source.isascii() else source


_HTML = ((b"&", rb"\u0026"), (b"<", rb"\u003c"), (b">", rb"\u003e"))
_SEPARATORS = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))


def escaped(document: bytes, *, html: bool) -> bytes:
    """Adds the escapes that Go's encoding/json writes and orjson doesn't: of U+2028 and U+2029, and with ``html``, Go's
    default (``Encoder.SetEscapeHTML``), of ``&``, ``<`` and ``>``. These occur inside strings only."""
    if html:
        for character, escape in _HTML:
            document = document.replace(character, escape)
    # Search for one byte first, which is fast; most texts don't contain it.
    if b"\xe2" in document:
        for character, escape in _SEPARATORS:
            document = document.replace(character, escape)
    return document


def dumps(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Compact JSON. Surrogates (file names that are not UTF-8) become U+FFFD.

    :raises TypeError: a value that ``default`` can't convert.
    """
    try:
        return orjson.dumps(value, default=default)
    except TypeError:
        # json writes surrogates as escapes, which ``loads`` replaces; other values that orjson refuses fail here too.
        return orjson.dumps(loads(json.dumps(value, default=default)))
