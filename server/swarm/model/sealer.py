"""The swarm's data key, as those that store sealed data use it (``server.swarm.keys``)."""

from typing import Protocol


class Opener(Protocol):
    def open(self, text: str, /) -> bytes:
        """The data of a sealed text. :raises WharfError: INTERNAL: it can't be opened."""


class Sealer(Opener, Protocol):
    def seal(self, data: bytes, /) -> str:
        """Encrypts and authenticates data; base64."""
