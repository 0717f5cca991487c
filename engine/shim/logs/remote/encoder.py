"""What each remote driver provides: an encoder of lines, made from the settings of a stdio URI."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol


class Part(NamedTuple):
    """A piece of a line of more than 16 KiB. ``ordinal`` counts from 1."""

    identity: str
    ordinal: int
    last: bool


class Encoder(Protocol):
    """Encodes a protocol's messages."""

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        """The messages of one line (without its newline); none for a line that the protocol skips."""


class Settings(NamedTuple):
    """The part of a stdio URI for a remote driver; ``options`` are the driver's own."""

    limit: int
    waits: bool
    options: Mapping[str, object]

    def text(self, name: str, default: str = "") -> str:
        value = self.options.get(name, default)
        return value if isinstance(value, str) else default

    def number(self, name: str, default: int) -> int:
        value = self.options.get(name, default)
        return value if isinstance(value, int) else default

    def strings(self, name: str) -> dict[str, str]:
        value = self.options.get(name)
        return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}
