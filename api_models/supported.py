"""The API versions that the engine serves.

The module imports nothing: the configuration is read before the large modules are loaded.
"""

Version = tuple[int, int]

MINIMUM: Version = (1, 24)
MAXIMUM: Version = (1, 55)


def spelled(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def parse_version(text: str) -> tuple[int, ...]:
    """ "1.55" → (1, 55). The text has only digits and dots."""
    return tuple(int(part or "0") for part in text.split("."))
