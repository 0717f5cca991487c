"""Attach and terminals: streams of a container's first process, also under load."""
