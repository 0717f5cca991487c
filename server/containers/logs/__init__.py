"""Logs: the settings of a container's log driver, the files of the file drivers, and ``docker logs``."""
