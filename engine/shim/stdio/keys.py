"""The detach keys: a sequence in a client's input that ends its session and never reaches the container."""


class Detach:
    """Filters a client's input. A begun sequence is held back until it is complete or broken off."""

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes for the container, whether the sequence was completed); what follows it is dropped."""
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
                # Broken off: what was held back was meant for the container. As with dockerd (and the CLI, which looks
                # for the keys first) the byte that broke it begins no other.
                out += keys[: self._matched]
                self._matched = 0
            out.append(byte)
        return bytes(out), False
