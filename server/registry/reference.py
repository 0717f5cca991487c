"""Names of images: the grammar of Docker's references, and their canonical and familiar forms.

``busybox`` is the familiar form of ``docker.io/library/busybox``; a digest identifies content, a tag names it.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from engine.common.errors import invalid

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library"
DEFAULT_TAG = "latest"
_NAME_MAX = 255

_alphanumeric = r"[a-z0-9]+"
_separator = r"(?:[._]|__|[-]+)"
_component = rf"{_alphanumeric}(?:{_separator}{_alphanumeric})*"
_domain_component = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_domain = rf"(?:{_domain_component}(?:\.{_domain_component})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_tag = r"[\w][\w.-]{0,127}"
_digest = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_name = rf"(?:{_domain}/)?{_component}(?:/{_component})*"

_REFERENCE = re.compile(rf"({_name})(?::({_tag}))?(?:@({_digest}))?", re.ASCII)
_TAG = re.compile(_tag, re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_SHA = re.compile(r"[a-f0-9]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A full name. ``domain`` is the registry, ``path`` the repository; tag and digest may be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository's familiar form: ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        official, slash, rest = self.path.partition("/")
        return rest if slash and official == _OFFICIAL and "/" not in rest else self.path

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """The familiar form with tag and digest."""
        return self.familiar_name + self._suffix()

    @property
    def name_only(self) -> bool:
        return not self.tag and not self.digest

    def tagged(self) -> "Reference":
        """With ``latest`` if there is neither tag nor digest."""
        return replace(self, tag=DEFAULT_TAG) if self.name_only else self

    def with_tag(self, tag: str) -> "Reference":
        """Replaces the tag.

        :raises WharfError: INVALID_ARGUMENT "invalid tag format".
        """
        if not _TAG.fullmatch(tag):
            raise invalid("invalid tag format")
        return replace(self, tag=tag)

    def with_digest(self, digest: str) -> "Reference":
        return replace(self, digest=check_digest(digest))

    def trimmed(self) -> "Reference":
        """Without tag and digest."""
        return Reference(self.domain, self.path)

    @property
    def selector(self) -> str:
        """The registry's selector: the digest if there is one, else the tag."""
        return self.digest or self.tag


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except Exception:
        return False
    return True


def check_digest(text: str) -> str:
    """Returns a valid digest.

    :raises WharfError: INVALID_ARGUMENT with go-digest's sentence.
    """
    algorithm, colon, value = text.partition(":")
    if not colon or not algorithm or not value:
        raise invalid("invalid checksum digest format")
    if algorithm not in _LENGTHS:
        raise invalid("unsupported digest algorithm")
    if len(value) != _LENGTHS[algorithm]:
        raise invalid("invalid checksum digest length")
    if not _SHA.fullmatch(value):
        raise invalid("invalid checksum digest format")
    return text


def _split_domain(text: str) -> tuple[str, str]:
    head, slash, rest = text.partition("/")
    if not slash or ("." not in head and ":" not in head and head != "localhost" and head.lower() == head):
        domain, path = DEFAULT_DOMAIN, text
    else:
        domain, path = head, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{_OFFICIAL}/{path}"
    return domain, path


@lru_cache(maxsize=512)
def parse(text: str) -> Reference:
    """Parses a name in any form and normalizes it. Adds no tag.

    :raises WharfError: INVALID_ARGUMENT "invalid reference format …" in Docker's words.
    """
    if _IDENTIFIER.fullmatch(text):
        raise invalid(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    name = remainder.split("@", 1)[0]
    colon = name.find(":")
    repository = name if colon < 0 else name[:colon]
    if repository.lower() != repository:
        raise invalid(f"invalid reference format: repository name ({repository}) must be lowercase")
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None:
        if not text:
            raise invalid("invalid reference format")
        if _REFERENCE.fullmatch(f"{domain}/{remainder}".lower()):
            raise invalid("invalid reference format: repository name must be lowercase")
        raise invalid("invalid reference format")
    full, tag, digest = found.groups()
    if len(full) - len(domain) - 1 > _NAME_MAX:
        raise invalid(f"repository name must not be more than {_NAME_MAX} characters")
    if digest:
        check_digest(digest)
    _, _, path = full.partition("/")
    return Reference(domain, path, tag or "", digest or "")


@dataclass(frozen=True, slots=True)
class DigestReference:
    """A bare digest, which is an image's id."""

    digest: str


def parse_any(text: str) -> Reference | DigestReference:
    """Parses a name, or an id of 64 hexadecimal digits with or without ``sha256:``.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if _IDENTIFIER.fullmatch(text):
        return DigestReference(f"sha256:{text}")
    if ":" in text and is_digest(text):
        return DigestReference(text)
    return parse(text)


def parse_canonical(text: str) -> Reference | None:
    """A name in the store's form; None for others (a dangling image's, another client's)."""
    try:
        reference = parse(text)
    except Exception:
        return None
    return reference if str(reference) == text else None
