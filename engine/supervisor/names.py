"""Validates names, labels and digests with containerd's rules and sentences."""

import re
from collections.abc import Mapping, Sequence

from engine.common.errors import WharfError, invalid

_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*")
_DIGEST = re.compile(r"(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})")
_LONGEST_IDENTIFIER = 76
_LARGEST_LABEL = 4096


def check_identifier(name: str, what: str = "") -> str:
    """Validates the id of a container or a namespace: safe as one component of a path. INVALID_ARGUMENT otherwise."""
    before = f"{what}: " if what else ""
    if not name:
        raise invalid(f"{before}identifier must not be empty")
    if len(name) > _LONGEST_IDENTIFIER:
        raise invalid(f'{before}identifier "{name}" greater than maximum length ({_LONGEST_IDENTIFIER} characters)')
    if not _IDENTIFIER.fullmatch(name):
        raise invalid(f'{before}identifier "{name}" must match ^{_IDENTIFIER.pattern}$')
    return name


def check_digest(digest: str) -> str:
    """Raises INVALID_ARGUMENT for anything but ``algorithm:hex`` of a known algorithm and its length."""
    if not _DIGEST.fullmatch(digest):
        raise invalid(f'invalid digest "{digest}": invalid checksum digest format')
    return digest


def check_labels(labels: Mapping[str, str], what: str = "") -> None:
    for name, value in labels.items():
        if len(name.encode()) + len(value.encode()) > _LARGEST_LABEL:
            before = f"{what}: " if what else ""
            raise invalid(
                f"{before}label key and value length ({len(name) + len(value)} bytes) greater than maximum size "
                f"({_LARGEST_LABEL} bytes), key: {name[:64]}"
            )


def masked_labels(
    old: Mapping[str, str], new: Mapping[str, str], mask: Sequence[str], unknown: "UnknownField"
) -> dict[str, str]:
    """The labels after an update with a field mask (empty: all are replaced). An empty value removes a label.

    ``unknown`` returns the error for a path of the mask that isn't about labels.
    """
    labels = dict(old)
    if not mask or "labels" in mask:
        labels = dict(new)
    for path in mask:
        if path.startswith("labels."):
            name = path.removeprefix("labels.")
            labels[name] = new.get(name, "")
        elif path != "labels":
            raise unknown(path)
    return {name: value for name, value in labels.items() if value != ""}


class UnknownField:
    """Makes the error for a path of a field mask that the object doesn't have: ``cannot update "size" field on content
    info "sha256:…"``."""

    def __init__(self, what: str, name: str) -> None:
        self._what = what
        self._name = name

    def __call__(self, path: str) -> WharfError:
        return invalid(f'cannot update "{path}" field on {self._what} "{self._name}"')
