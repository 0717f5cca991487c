"""Logs: the drivers and their options, the files of the file drivers, and ``docker logs``."""
