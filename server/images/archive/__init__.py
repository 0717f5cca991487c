"""``docker load`` and ``docker save``: docker-archive in all its versions and OCI layouts, read from a stream."""
