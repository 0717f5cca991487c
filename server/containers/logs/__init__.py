"""Logs: what a container asks of its driver, the files of the file drivers, and ``docker logs``."""
