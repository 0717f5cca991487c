"""The life of a container: start, exit, restart, stop, removal, checkpoints, and recovery after a crash.

Each verb holds the container's lock; every step of a start is undone in reverse order if a later one fails.
"""
