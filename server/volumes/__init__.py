"""Volumes: named directories that outlive containers. ``service.Volumes`` is the entry point."""
