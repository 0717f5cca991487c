"""Read-only operations: ``docker inspect``, ``docker ps`` with sizes, ``docker stats``, ``docker top``."""
