"""What the API shows of containers: inspect, ``docker ps``, sizes, ``docker stats``, ``docker top``."""
