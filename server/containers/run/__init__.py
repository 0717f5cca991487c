"""Start, exit, restart, stop, removal and checkpoints of a container, and recovery after a crash.

Each operation changes the state under the container's lock. If a step of a start fails, the former steps are undone in
reverse order.
"""
