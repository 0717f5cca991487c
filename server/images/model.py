"""The model of the image services: images ready for use, names of dangling images, and users of images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from api_models.container import ContainerConfig
from engine.api.types import Descriptor, ImageRecord, Platform
from engine.common.errors import WharfError, not_found
from server.access.owners import unqualified
from server.registry.reference import DigestReference, Reference, parse_canonical

#: Prefix of the names of dangling images: dockerd's form, so that each finds the other's images.
_DANGLING = "moby-dangling@"
#: The label with the image that a build step started from.
PARENT_LABEL = "org.mobyproject.image.parent"


def dangling_name(digest: str) -> str:
    return _DANGLING + digest


def is_dangling(record: ImageRecord) -> bool:
    return unqualified(record.name)[1] == dangling_name(record.target.digest)


def owner_of(record: ImageRecord) -> str:
    return unqualified(record.name)[0]


def reference_of(record: ImageRecord) -> Reference | None:
    """The owner's own name of the image; None for a dangling image and for another client's names."""
    return parse_canonical(unqualified(record.name)[1])


def is_tag(record: ImageRecord, repository: Reference) -> bool:
    """Whether a record of the caller's names is a tag of a repository. An administrator's own names are the unqualified
    ones: the others are of users."""
    name = reference_of(record)
    return not owner_of(record) and name is not None and name.name == repository.name and bool(name.tag)


def short_id(digest: str) -> str:
    """Return the twelve digits that the CLI shows."""
    return digest.partition(":")[2][:12] or digest[:12]


def no_such_image(reference: Reference | DigestReference | str) -> WharfError:
    """Return the error with dockerd's sentence; clients choose their exception by it."""
    if isinstance(reference, DigestReference):
        text = reference.digest
    elif isinstance(reference, Reference):
        text = reference.tagged().familiar
    else:
        text = reference
    return not_found(f"No such image: {text}")


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """The image of one platform, ready to create a container.

    ``id`` is the digest of ``target``, the index or manifest that a name refers to. ``name`` is the canonical name by
    which it was found ("" if found by id). ``manifest_descriptor`` is the chosen manifest, with its platform;
    ``config`` the complete OCI image config. ``chain_id`` names the root file system's snapshot ("" without layers).
    """

    id: str
    name: str
    target: Descriptor
    manifest_descriptor: Descriptor
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    config_digest: str
    diff_ids: tuple[str, ...]
    chain_id: str
    platform: Platform

    @property
    def layers(self) -> list[Mapping[str, Any]]:
        return list(self.manifest.get("layers") or ())

    @property
    def container_config(self) -> Mapping[str, Any]:
        """The ``config`` object of the image config: Env, Cmd, Entrypoint …"""
        return self.config.get("config") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return self.container_config.get("Labels") or {}


class _State(Protocol):
    running: bool


class _Mount(Protocol):
    kind: str
    spec: dict[str, Any]


class ImageUser(Protocol):
    """The attributes of a container that concern images."""

    @property
    def id(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def image_manifest(self) -> dict[str, Any] | None: ...
    @property
    def config(self) -> ContainerConfig: ...
    @property
    def mounts(self) -> Mapping[str, _Mount]: ...
    @property
    def state(self) -> _State: ...


#: Returns all present containers.
Users = Callable[[], Iterable[ImageUser]]


def mounted(user: ImageUser) -> set[str]:
    """Return the ids of the images that a container mounts (``type=image``)."""
    return {str(point.spec.get("Source")) for point in user.mounts.values() if point.kind == "image"}
