"""Splits an instruction's text: leading flags, JSON lists, words that keep their quotes, ``name=value`` pairs."""

import json
import re
from collections.abc import Sequence

from engine.common import jsontext
from server.builder.dockerfile.errors import DockerfileError

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def split_words(text: str, escape: str) -> list[str]:
    """Split at blanks outside quotes; quotes and escapes are kept."""
    words: list[str] = []
    at = 0
    while (at := _skip_blanks(text, at)) < len(text):
        end = _word_end(text, escape, at)
        words.append(text[at:end])
        at = end
    return words


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _word_end(text: str, escape: str, at: int) -> int:
    """Return the end of the word that starts at ``at``."""
    quote = ""
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            at += 2
            continue
        if quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char.isspace():
            break
        at += 1
    return at


def take_flags(text: str, escape: str) -> tuple[list[str], str]:
    """Split off the ``--flag`` words before an instruction's arguments."""
    flags: list[str] = []
    at = _skip_blanks(text, 0)
    while text.startswith("--", at):
        end = _word_end(text, escape, at)
        first = text[at:end]
        at = _skip_blanks(text, end)
        if first == "--":
            break
        flags.append(_unquoted(first, escape))
    return flags, text[at:]


def _unquoted(word: str, escape: str) -> str:
    out: list[str] = []
    quote = ""
    at = 0
    while at < len(word):
        char = word[at]
        if char == escape and quote != "'" and at + 1 < len(word):
            out.append(word[at + 1])
            at += 2
            continue
        if quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            out.append(char)
        at += 1
    return "".join(out)


def json_list(text: str) -> list[str] | None:
    """Return the words of the exec form, or ``None`` if the text is the shell form."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = jsontext.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return value


def pairs(text: str, escape: str, *, instruction: str) -> tuple[list[tuple[str, str]], bool]:
    """Parse ``name=value …``, or the old form ``name value with blanks``; the flag tells whether it was the old
    form."""
    words = split_words(text, escape)
    if not words:
        raise DockerfileError(f"{instruction} requires at least one argument")
    if "=" not in words[0]:
        name = words[0]
        value = text.strip()[len(name) :].strip()
        if not value:
            raise DockerfileError(f"{instruction} must have two arguments", numbered=False)
        return [(name, value)], True
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value", numbered=False
            )
        if not name:
            raise DockerfileError(f"{instruction} names can not be blank")
        found.append((name, value))
    return found, False


def duration(text: str) -> int:
    """Parse a Go duration such as ``1m30s`` to nanoseconds. Raises :class:`DockerfileError`."""
    body = text.strip()
    sign = -1 if body.startswith("-") else 1
    body = body.lstrip("+-")
    if body == "0":
        return 0
    total = 0.0
    at = 0
    while at < len(body):
        match = _DURATION.match(body, at)
        if match is None:
            break
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if total >= 2**63:
        raise DockerfileError(f"time: invalid duration {json.dumps(text)}")
    if not body or at != len(body):
        unit = "missing unit in duration" if re.fullmatch(r"[\d.]+", body) else "invalid duration"
        raise DockerfileError(f"time: {unit} {json.dumps(text)}")
    return sign * round(total)


def closest(word: str, known: Sequence[str]) -> str | None:
    """Return the most similar known word, with at most two different letters."""
    best: tuple[int, str] | None = None
    for candidate in known:
        if abs(len(candidate) - len(word)) > 2:
            continue
        distance = _distance(word.lower(), candidate.lower())
        if distance <= 2 and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def _distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]
