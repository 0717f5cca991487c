"""The network sandboxes of containers, from a container's start to its exit, and over a restart of the daemon.

``sandbox`` makes one, ``teardown`` removes it; ``connect`` and ``unlink`` change it while the container runs.
``recover`` and ``repair`` restore it, ``settings`` shows it. ``attachments`` has the endpoints, ``publish`` the ports,
``elements`` the firewall's elements.
"""
