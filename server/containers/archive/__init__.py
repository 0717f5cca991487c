"""Files of a container: ``docker cp``, ``docker export``, ``docker diff``. The kernel resolves paths in its root."""
