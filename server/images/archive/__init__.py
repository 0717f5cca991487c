"""``docker load`` and ``docker save``: all versions of docker-archive, and OCI layouts, read from a stream."""
