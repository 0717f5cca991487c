"""Joins physical lines to logical lines: parser directives, comments, continuations and here-documents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.builder.dockerfile.errors import DockerfileError, Span

_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)$")
_KNOWN = frozenset(("syntax", "escape", "check"))
_HEREDOC = re.compile(r"(?P<fd>\d{0,9})<<(?P<chomp>-?)\s*(?P<quote>['\"]?)(?P<name>[a-zA-Z_][\w.]*)(?P=quote)")
_TAKES_HEREDOC = frozenset(("ADD", "COPY", "RUN"))
_LARGEST = 1 << 20
"""The most bytes in a line (BuildKit's scanner has a limit too)."""


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document. ``expand``: its delimiter was not quoted, so variables are expanded."""

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: an instruction's words as one text, with its here-documents."""

    text: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    """The comment lines above, without ``#``: the description of a stage or argument."""


@dataclass(slots=True)
class Source:
    """The result of :func:`split`."""

    lines: list[Line] = field(default_factory=list)
    directives: dict[str, str] = field(default_factory=dict)
    escape: str = "\\"
    physical: list[str] = field(default_factory=list)
    empty: list[Span] = field(default_factory=list)
    """Where continuations that contain empty lines end."""


def _directives(physical: Sequence[str]) -> tuple[dict[str, str], int]:
    """Parse the directives at the start of the file; the first other line ends them."""
    found: dict[str, str] = {}
    for number, line in enumerate(physical):
        match = _DIRECTIVE.match(line)
        if match is None:
            return found, number
        name = match[1].lower()
        if name not in _KNOWN:
            return found, number
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", Span(number + 1, number + 1))
        found[name] = match[2].rstrip()
    return found, len(physical)


def find_heredocs(text: str) -> list[tuple[str, bool, bool, int]]:
    """Return the here-documents that a line starts, outside quotes: name, expand, chomp, file descriptor."""
    found = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "\\":
            at += 1
        elif text.startswith("<<<", at):
            at += 2  # a here-string of the shell
        elif char == "<" or (char.isdigit() and (at == 0 or text[at - 1].isspace())):
            match = _HEREDOC.match(text, at)
            if match is not None:
                found.append((match["name"], not match["quote"], bool(match["chomp"]), int(match["fd"] or 0)))
                at = match.end()
                continue
        at += 1
    return found


def split(text: str) -> Source:
    """Split a Dockerfile into logical lines. Raises :class:`DockerfileError`."""
    physical = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if physical and physical[-1] == "":
        physical.pop()
    for number, line in enumerate(physical, 1):
        if len(line) > _LARGEST:
            raise DockerfileError("line is too long", Span(number, number))
    source = Source(physical=physical)
    source.directives, at = _directives(physical)
    escape = source.directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(f"invalid escape token '{escape}' does not match ` or \\", numbered=False)
    source.escape = escape
    continued = re.compile(r"([^" + re.escape(escape) + r"]|^)" + re.escape(escape) + r"[ \t]*$")
    comments: list[str] = []
    while at < len(physical):
        line = physical[at].strip()
        if not line:
            at += 1
            continue
        if line.startswith("#"):
            comments.append(line[1:].strip())
            at += 1
            continue
        at = _logical(source, at, continued, tuple(comments))
        comments = []
    return source


def _logical(source: Source, at: int, continued: re.Pattern[str], comments: tuple[str, ...]) -> int:
    physical = source.physical
    first = at
    parts: list[str] = []
    blank = False
    while at < len(physical):
        raw = physical[at].lstrip() if not parts else physical[at]
        stripped = raw.strip()
        if parts and (not stripped or stripped.startswith("#")):
            # Comments and blank lines within a continued line are skipped; blank lines are deprecated.
            blank = blank or not stripped
            at += 1
            continue
        at += 1
        match = continued.search(raw)
        if match is None:
            parts.append(raw.rstrip() if not parts else raw)
            break
        parts.append(raw[: match.end(1)])
    if blank:
        source.empty.append(Span(at, at))
    joined = "".join(parts).strip()
    keyword = joined.split(None, 1)[0].upper() if joined else ""
    documents: list[Heredoc] = []
    announced = find_heredocs(joined) if keyword in _TAKES_HEREDOC or keyword == "ONBUILD" else []
    for name, expand, chomp, fd in announced:
        body: list[str] = []
        while True:
            if at >= len(physical):
                raise DockerfileError("unterminated heredoc", Span(first + 1, len(physical)), numbered=False)
            line = physical[at]
            at += 1
            if (line.lstrip("\t") if chomp else line) == name:
                break
            body.append(line.lstrip("\t") if chomp else line)
        content = "".join(item + "\n" for item in body)
        documents.append(Heredoc(name=name, content=content, expand=expand, chomp=chomp, fd=fd))
    source.lines.append(Line(joined, Span(first + 1, at), tuple(documents), comments))
    return at
