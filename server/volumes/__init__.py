"""Volumes: named directories that outlive containers. ``service.Volumes`` is the way in."""
