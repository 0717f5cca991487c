"""Job sockets: sockets whose creations are visible only through them, and are removed with them.

A CI job or a test run uses such a socket as its ``docker.sock``. What it creates belongs to an owner of its own,
``alice:0f3c…`` (``server.access.owners``). When the socket is closed, its time ends, or the process that holds it
exits, all of it is removed. Job sockets outlive the daemon. Loaded on engines with a policy only.
"""
