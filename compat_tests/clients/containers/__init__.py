"""Containers: life cycle, streams, logs, files and terminals."""
