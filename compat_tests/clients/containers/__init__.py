"""Containers: their lives, streams, logs, files and terminals."""
