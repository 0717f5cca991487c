"""Changes of behaviour that came with API versions, where no field and no query parameter has them as its mark.

A handler asks a change whether the client's version has it (``params.has(request, changes.X)``) and compares nothing.
"""

from dataclasses import dataclass

from api_models.versions import Version


@dataclass(frozen=True, slots=True)
class Change:
    """Something that clients of version ``since`` and later expect."""

    since: Version

    def within(self, version: Version) -> bool:
        """Whether a client of ``version`` expects it."""
        return version >= self.since


# streams

#: ``/attach/ws`` sends binary messages; text before.
WEBSOCKET_BINARY = Change((1, 28))
#: The head of a ``/wait`` is sent when the wait begins; with the answer before.
WAIT_HEAD_AT_ONCE = Change((1, 30))
#: A ``/wait`` for a removal that fails answers the error; nothing before.
WAIT_TELLS_ERRORS = Change((1, 34))
#: Framed streams have a media type of their own; that of raw ones before.
MULTIPLEXED_TYPE = Change((1, 42))
#: An image that is made is an event.
IMAGE_CREATE_EVENTS = Change((1, 46))

# containers

#: Without ``CgroupnsMode`` the daemon's default counts on cgroup v1, too; the host's namespace before.
CGROUPNS_DEFAULT = Change((1, 41))
#: Read-only binds are recursively read-only.
RECURSIVE_READ_ONLY = Change((1, 44))
#: A MAC address belongs to an endpoint; to the container, and thereby to all its endpoints, before.
ENDPOINT_MAC_ADDRESS = Change((1, 44))

# volumes

#: A prune keeps named volumes unless the filter ``all`` is given.
PRUNE_KEEPS_NAMED_VOLUMES = Change((1, 42))
