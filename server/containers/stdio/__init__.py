"""Attach and the standard streams: how a client's connection reaches the process of a container."""
