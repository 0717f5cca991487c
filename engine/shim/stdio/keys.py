"""The detach keys: a sequence in a client's input that ends its session and is not passed to the container."""


class Detach:
    """Filters a client's input. An incomplete sequence is kept back until it is completed or broken off."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """Returns (bytes for the container, whether the sequence was completed); drops the bytes after it."""
        keys = self._keys
        if not keys:
            return data, False
        if not self._matched and keys[0] not in data:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(out), True
                continue
            if self._matched:
                # Broken off: the bytes kept back belong to the container. As in dockerd (and the CLI, which looks for
                # the keys first) the byte that breaks a sequence starts no other.
                out += keys[: self._matched]
                self._matched = 0
            out.append(byte)
        return bytes(out), False
