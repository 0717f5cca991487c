"""Logs of containers. ``opening`` makes the driver that a stdio URI names; ``driver`` is its interface. ``files``
writes Docker's files, which ``rotate`` rotates; ``remote`` sends lines to a server.
"""
