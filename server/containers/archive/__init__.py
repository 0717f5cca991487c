"""Files of a container: ``docker cp``, ``docker export``, ``docker diff``. The kernel confines paths to the root."""
