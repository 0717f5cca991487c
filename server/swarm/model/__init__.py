"""The objects of a swarm as they are stored. Each is a frozen record; ``dataclasses.replace`` makes a changed copy.

Times are ns since the epoch, 0: never. ``Object.version`` is the revision of the commit that wrote the object (see
``store.interface``); it is ``Version.Index`` of the API.
"""
