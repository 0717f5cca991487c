"""The interface of volume drivers (``local`` here, others through the legacy plugin protocol)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@dataclass(slots=True)
class Volume:
    """A stored volume. ``options`` None: none were given. ``created_ns``: nanoseconds since the epoch.

    ``name`` is unique in the engine: for the volume of an ``owner`` (see ``server.access``) the ``qualified`` one.
    ``mountpoint`` is the directory on the host; a plugin may report it only while the volume is mounted.
    """

    name: str
    driver: str = "local"
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    created_ns: int = 0
    mountpoint: str = ""
    scope: str = "local"
    status: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    #: The container whose create made this volume, until another client requests it; not stored.
    made_for: str = ""

    @property
    def own_name(self) -> str:
        """The name among the owner's volumes, as clients see it."""
        # As ``unqualified``, without a search: lists ask several times for each volume.
        return self.name[len(self.owner) + 2 :] if self.owner else self.name

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in (self.labels or {})

    def to_doc(self) -> bytes:
        return orjson.dumps(
            {
                "name": self.name,
                "driver": self.driver,
                "labels": self.labels,
                "options": self.options,
                "created_ns": self.created_ns,
                "mountpoint": self.mountpoint,
                "scope": self.scope,
                "owner": self.owner,
            }
        )

    @classmethod
    def from_doc(cls, doc: bytes) -> "Volume":
        return cls(**orjson.loads(doc))


@dataclass(frozen=True, slots=True)
class VolumeState:
    """The state of a volume that its driver reports. ``created_ns`` 0: unknown."""

    mountpoint: str = ""
    created_ns: int = 0
    status: dict[str, Any] = field(default_factory=dict)


class Driver(Protocol):
    """A volume driver. Every method may access the disk or a plugin and is awaited; all are idempotent.

    The caller serializes the calls for one volume and counts the users: ``mount`` is called for the first of them,
    ``unmount`` after the last.
    """

    name: str
    scope: str

    async def check(self, name: str, options: Mapping[str, str]) -> None:
        """Checks whether such a volume can be created here.

        :raises WharfError: INVALID_ARGUMENT with the reason.
        """

    async def create(self, name: str, options: Mapping[str, str]) -> str:
        """Creates the volume, unless the driver has it already; returns its directory on the host ("" if it has one
        only while it is mounted)."""

    async def remove(self, name: str) -> None:
        """Removes the volume and its content. A missing one is no error."""

    async def mount(self, name: str, options: Mapping[str, str], *, user: str) -> str:
        """Makes the content accessible and returns the directory. ``user`` identifies the caller."""

    async def unmount(self, name: str, options: Mapping[str, str], *, user: str) -> None:
        """Undoes ``mount``."""


class RemoteDriver(Driver, Protocol):
    """A driver in another process, which may have volumes that were not created here."""

    async def get(self, name: str) -> VolumeState | None:
        """One volume; None if the driver answers that it has none of this name.

        :raises WharfError: no answer, or a malformed one.
        """

    async def list(self) -> dict[str, VolumeState]:
        """All volumes of the driver, by name. Raises as ``get``, and the driver's own refusals."""
