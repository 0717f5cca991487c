"""Changes of behaviour between API versions that no field and no query parameter declares.

A handler asks whether the client's version has a change (``params.has(request, changes.X)``) and compares no versions.
"""

from dataclasses import dataclass

from api_models.supported import Version


@dataclass(frozen=True, slots=True)
class Change:
    """A behaviour that clients of version ``since`` and later expect."""

    since: Version

    def within(self, version: Version) -> bool:
        """Whether a client of ``version`` expects it."""
        return version >= self.since


# streams

#: ``/attach/ws`` sends binary messages; before, text.
WEBSOCKET_BINARY = Change((1, 28))
#: The response head of a ``/wait`` is sent when the wait starts; before, with the answer.
WAIT_HEAD_AT_ONCE = Change((1, 30))
#: A ``/wait`` for a removal that fails returns the error; before, nothing.
WAIT_TELLS_ERRORS = Change((1, 34))
#: Framed streams have a media type of their own; before, that of raw streams.
MULTIPLEXED_TYPE = Change((1, 42))
#: The creation of an image is an event.
IMAGE_CREATE_EVENTS = Change((1, 46))
#: Events are JSON Lines by default; before, their media type is that of one JSON object.
EVENTS_AS_JSON_LINES = Change((1, 52))
#: In strict mode, events lack ``status``, ``id`` and ``from``.
EVENTS_WITHOUT_OLD_NAMES = Change((1, 52))
#: A log can be JSON objects.
LOGS_AS_JSON = Change((1, 54))

# images

#: Inspect of an image shows its ``Identity``, which costs a call of the content store.
IMAGE_IDENTITY = Change((1, 53))

# containers

#: Without ``CgroupnsMode``, the daemon's default also applies on cgroup v1; before, the host's namespace.
CGROUPNS_DEFAULT = Change((1, 41))
#: Read-only binds are recursively read-only.
RECURSIVE_READ_ONLY = Change((1, 44))
#: A MAC address belongs to an endpoint; before, to the container and so to all its endpoints.
ENDPOINT_MAC_ADDRESS = Change((1, 44))
#: Create warns of exposed ports with an empty list of bindings.
WARN_OF_EMPTY_PORT_BINDINGS = Change((1, 52))

# volumes

#: A prune keeps named volumes unless the filter ``all`` is given.
PRUNE_KEEPS_NAMED_VOLUMES = Change((1, 42))

# services

#: Clients send a service's image with its digest; for older ones the engine asks the registry.
CLIENTS_PIN_IMAGES = Change((1, 30))
